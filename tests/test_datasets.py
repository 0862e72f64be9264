"""Generated, bundled and downloaded collections of tasks."""

import gzip
import hashlib
import io
import os
import shutil
import sys
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import Ridge
from sklearn.utils import check_random_state

from skmeta import datasets
from skmeta.datasets import _banking77, _omniglot, _parkinsons, _remote, _wisdm
from skmeta.datasets._remote import RemoteFile, fetch_file


@pytest.fixture
def shared(shared_data):
    """Path of a real data file, of which any may be absent."""

    def find(name):
        path = shared_data / name
        if not path.exists():
            pytest.skip(f"{name} is not in {shared_data}")
        return path

    return find


def place(original, data_home, dataset, filename):
    """Put an original file where the fetcher looks for it."""
    folder = data_home / dataset
    folder.mkdir(exist_ok=True)
    shutil.copy(original, folder / filename)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


# Generators


def test_sinusoid_tasks_are_the_waves_that_they_say():
    tasks, true = datasets.make_sinusoid_tasks(
        50, return_parameters=True, random_state=0
    )
    for (X, y), height, shift in zip(tasks, true.amplitude, true.phase, strict=True):
        assert X.shape == (20, 1)
        np.testing.assert_allclose(y, height * np.sin(X[:, 0] - shift))
    X = np.concatenate([task.X for task in tasks])
    assert -5 <= X.min() < -4.9 and 4.9 < X.max() <= 5
    assert 0.1 <= true.amplitude.min() and true.amplitude.max() <= 5
    assert 0 <= true.phase.min() and true.phase.max() <= np.pi


def test_sinusoid_noise_has_its_standard_deviation():
    tasks, true = datasets.make_sinusoid_tasks(
        10, 500, noise=0.3, return_parameters=True, random_state=0
    )
    rest = [
        y - height * np.sin(X[:, 0] - shift)
        for (X, y), height, shift in zip(tasks, true.amplitude, true.phase, strict=True)
    ]
    assert np.std(rest) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    "make", [datasets.make_sinusoid_tasks, datasets.make_regression_tasks]
)
def test_generators_are_reproducible_ragged_and_leave_the_global_state(make):
    before = check_random_state(None).get_state()[1].copy()
    first, second = (make(40, (3, 7), random_state=5) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.X, b.X)
        np.testing.assert_array_equal(a.y, b.y)
        assert len(a.X) == len(a.y)
    assert {len(task.y) for task in first} == {3, 4, 5, 6, 7}
    after = check_random_state(None).get_state()[1]
    np.testing.assert_array_equal(before, after)


def test_regression_tasks_scatter_around_a_common_mean():
    tasks, coef = datasets.make_regression_tasks(
        2000,
        10,
        3,
        between=[0.0, 0.5, 2.0],
        noise=0.1,
        return_coef=True,
        random_state=1,
    )
    np.testing.assert_allclose(coef.std(axis=0), [0, 0.5, 2], atol=0.06)
    rest = np.concatenate([y - X @ w for (X, y), w in zip(tasks, coef, strict=True)])
    assert rest.std() == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize(
    "make, params, message",
    [
        ("sinusoid", {"amplitude": (2, 1)}, "amplitude must be a pair"),
        ("sinusoid", {"phase": (0, 1, 2)}, "phase must be a pair"),
        ("sinusoid", {"x_range": (0, np.inf)}, "x_range must be a pair"),
        ("sinusoid", {"n_samples": (0, 3)}, "n_samples must be a positive"),
        ("sinusoid", {"n_samples": ()}, "n_samples must be a pair"),
        ("sinusoid", {"n_tasks": 0}, "'n_tasks' parameter"),
        ("regression", {"between": [1.0, 2.0]}, "between must be"),
        ("regression", {"between": [-1.0] * 5}, "between must be"),
        ("regression", {"noise": -1}, "'noise' parameter"),
    ],
)
def test_generators_say_what_is_wrong(make, params, message):
    with pytest.raises(ValueError, match=message):
        getattr(datasets, f"make_{make}_tasks")(**params)


# Bundled


def test_digits_are_split_by_class():
    digits = datasets.load_digits_tasks()
    assert digits.X_train.shape == (1083, 8, 8) and digits.X_test.shape == (714, 8, 8)
    assert set(digits.y_train) == set(digits.train_classes) == set(range(6))
    assert set(digits.y_test) == set(digits.test_classes) == {6, 7, 8, 9}
    assert digits.X_train.min() == 0 and digits.X_train.max() == 1
    flat = datasets.load_digits_tasks(train_classes=[9, 3], flatten=True)
    assert set(flat.y_train) == {3, 9} and flat.X_train.shape[1:] == (64,)


@pytest.mark.parametrize("n_shots, expected", [(1, 0.78), (5, 0.92)])
def test_raw_pixel_baseline_of_the_description(n_shots, expected):
    digits = datasets.load_digits_tasks(flatten=True)
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(digits.y_test == k) for k in digits.test_classes]
    scores = []
    for _ in range(300):
        drawn = np.array([rng.choice(r, n_shots + 10, replace=False) for r in rows])
        centroids = digits.X_test[drawn[:, :n_shots]].mean(axis=1)
        queries = digits.X_test[drawn[:, n_shots:]]
        distances = np.linalg.norm(queries[:, :, np.newaxis] - centroids, axis=-1)
        scores.append(np.mean(distances.argmin(axis=2).T == np.arange(4)))
    assert np.mean(scores) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("classes", [[], range(10), [1, 10], ["a"]])
def test_digits_need_both_seen_and_unseen_classes(classes):
    with pytest.raises(ValueError, match="train_classes must"):
        datasets.load_digits_tasks(train_classes=list(classes))


def test_iris_tasks_are_views_of_the_same_flowers():
    iris = datasets.load_iris_tasks()
    names = iris.feature_names + iris.test_feature_names
    assert len(iris.tasks) == 5 and len(set(names)) == 6
    original = load_iris()
    columns = [name.removesuffix(" (cm)") for name in original.feature_names]
    for (X, y), name in zip(iris.tasks + iris.test_tasks, names, strict=True):
        np.testing.assert_array_equal(np.bincount(y[:15]), [5, 5, 5])
        view = original.data[:, [columns.index(part) for part in name]]
        for label in range(3):
            np.testing.assert_array_equal(X[y == label], view[original.target == label])


def test_iris_subsets_can_be_held_out_by_name_or_position():
    by_name = datasets.load_iris_tasks(
        test_subsets=[("petal width", "sepal length"), (1, 2)]
    )
    assert by_name.test_feature_names == [
        ("sepal length", "petal width"),
        ("sepal width", "petal length"),
    ]
    assert len(by_name.tasks) == 4
    assert len(datasets.load_iris_tasks(subset_size=3, test_subsets=[]).tasks) == 4
    for wrong in [("petal width",), (0, 0), (0, 4), ("petal", 1)]:
        with pytest.raises(ValueError, match="A test subset must name 2 different"):
            datasets.load_iris_tasks(test_subsets=[wrong])


def test_breast_cancer_rows_are_ways_of_measuring_a_tumour():
    from sklearn.datasets import load_breast_cancer

    cancer = datasets.load_breast_cancer_tasks()
    original = load_breast_cancer()
    names = list(original.feature_names)
    mean, error, worst = (
        original.data[7, names.index(name)]
        for name in ("mean smoothness", "smoothness error", "worst smoothness")
    )
    row = 7 * 8 + 4
    assert cancer.feature_names[4] == "smoothness" and cancer.groups[row] == 7
    np.testing.assert_allclose(
        cancer.data[row], [np.log(error / mean), 0, 0, 0, 1, 0, 0, 0]
    )
    assert cancer.target[row] == pytest.approx(np.log(worst / mean))
    assert np.isfinite(cancer.data).all() and np.isfinite(cancer.target).all()


def test_a_few_rows_of_a_new_tumour_help():
    """An offset, shrunk by what is known from other tumours, beats the pooled model."""
    X, y, tumour = datasets.load_breast_cancer_tasks(return_X_y_groups=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(569)
    known = np.isin(tumour, order[:400])
    pooled = Ridge().fit(X[known], y[known])
    rest = (y - pooled.predict(X)).reshape(-1, 8)
    within = rest[order[:400]].var(axis=1, ddof=1).mean()
    between = rest[order[:400]].mean(axis=1).var() - within / 8
    new = rng.permuted(rest[order[400:]], axis=1)
    offset = new[:, :3].mean(axis=1, keepdims=True) * 3 / (3 + within / between)
    assert np.std(new[:, 3:]) > 0.12
    assert np.std(new[:, 3:] - offset) < 0.85 * np.std(new[:, 3:])


def test_fertility_is_a_table_of_countries_in_order_of_time():
    pytest.importorskip("statsmodels")
    fertility = datasets.load_fertility_tasks()
    assert fertility.data.shape == (188 * 52, 1) and len(set(fertility.groups)) == 188
    assert not any("members" in name or "(all" in name for name in fertility.groups)
    kenya = fertility.groups == "Kenya"
    np.testing.assert_array_equal(fertility.data[kenya, 0], np.arange(1960, 2012))
    assert fertility.target[kenya][[0, -1]] == pytest.approx([7.946, 4.538])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.datasets.fertility", None)
    with pytest.raises(ImportError, match="pip install statsmodels"):
        datasets.load_fertility_tasks()


@pytest.mark.parametrize(
    "load", [datasets.load_breast_cancer_tasks, datasets.load_fertility_tasks]
)
def test_grouped_tables_as_frame_hold_the_same(load):
    pytest.importorskip("pandas")
    pytest.importorskip("statsmodels")
    arrays, frames = load(), load(as_frame=True)
    np.testing.assert_array_equal(arrays.data, frames.data)
    np.testing.assert_array_equal(arrays.target, frames.target)
    np.testing.assert_array_equal(arrays.groups, frames.groups)
    assert list(frames.data.columns) == arrays.feature_names
    assert list(frames.frame.columns) == [
        frames.groups.name,
        *arrays.feature_names,
        frames.target.name,
    ]
    assert arrays.frame is None
    X, y, groups = load(return_X_y_groups=True)
    np.testing.assert_array_equal(X, arrays.data)


# Downloading


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            super().do_GET()


@pytest.fixture
def host(tmp_path):
    """Serve a folder on this machine, in place of the original host."""
    folder = tmp_path / "host"
    folder.mkdir()
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch_from(url, sha256, data_home, **params):
    remote = RemoteFile(url, "rows.csv", sha256)
    return fetch_file(remote, "rows", data_home=data_home, delay=0, **params)


def test_download_is_checked_and_cached(host, tmp_path):
    (host.folder / "rows.csv").write_bytes(b"a,b\n1,2\n")
    where = f"{host.url}/rows.csv", sha256(b"a,b\n1,2\n"), tmp_path / "data"
    path = fetch_from(*where)
    assert path.read_bytes() == b"a,b\n1,2\n"
    (host.folder / "rows.csv").unlink()
    assert fetch_from(*where) == path
    assert fetch_from(*where, download_if_missing=False) == path
    assert [file.name for file in path.parent.iterdir()] == ["rows.csv"]


def test_corrupt_download_leaves_nothing(host, tmp_path):
    (host.folder / "rows.csv").write_bytes(b"not the rows")
    expected = sha256(b"a,b\n1,2\n")
    with pytest.raises(OSError, match=f"corrupt(.|\n)*{expected}") as error:
        fetch_from(f"{host.url}/rows.csv", expected, tmp_path / "data")
    assert sha256(b"not the rows") in str(error.value)
    assert list((tmp_path / "data/rows").iterdir()) == []


@pytest.mark.parametrize("page", ["cut", "absent"])
def test_broken_connection_says_what_to_do(host, tmp_path, page):
    with pytest.raises(OSError, match="Could not download") as error:
        fetch_from(f"{host.url}/{page}", None, tmp_path / "data", n_retries=1)
    path = tmp_path / "data/rows/rows.csv"
    for part in (f"{host.url}/{page}", str(path), "SKMETA_DATA", "not published"):
        assert part in str(error.value)
    assert list(path.parent.iterdir()) == []


def test_a_failed_connection_is_tried_again(monkeypatch, tmp_path):
    calls = []

    def retrieve(url, part):
        calls.append(url)
        if len(calls) < 3:
            raise ConnectionResetError("gone")
        Path(part).write_bytes(b"rows")

    monkeypatch.setattr(_remote, "_retrieve_once", retrieve)
    path = fetch_from("http://host/rows", sha256(b"rows"), tmp_path, n_retries=2)
    assert path.read_bytes() == b"rows" and len(calls) == 3


def test_no_download_where_it_is_not_wanted(tmp_path):
    with pytest.raises(OSError, match="download_if_missing is False") as error:
        datasets.fetch_banking77(data_home=tmp_path, download_if_missing=False)
    remote = _banking77._FILES["train"]
    for part in (remote.url, remote.sha256, str(tmp_path / "banking77/train.csv")):
        assert part in str(error.value)


def test_changed_file_in_the_cache_is_not_read(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/rows.csv").write_text("something else")
    with pytest.raises(OSError, match="Delete it and call again"):
        fetch_from("http://host/rows.csv", sha256(b"rows"), tmp_path)


def test_first_use_is_trusted_and_remembered(host, tmp_path):
    (host.folder / "rows.csv").write_bytes(b"first")
    where = f"{host.url}/rows.csv", None, tmp_path / "data"
    with pytest.warns(UserWarning, match=sha256(b"first")):
        path = fetch_from(*where)
    assert fetch_from(*where) == path
    path.write_bytes(b"second")
    with pytest.raises(OSError, match=sha256(b"first")):
        fetch_from(*where)


def test_data_home_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SKMETA_DATA", str(tmp_path / "here"))
    assert datasets.get_data_home() == str(tmp_path / "here")
    assert (tmp_path / "here").is_dir()
    monkeypatch.delenv("SKMETA_DATA")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "home"))
    monkeypatch.chdir(tmp_path)
    assert datasets.get_data_home() == os.path.join("home", "skmeta_data")


@pytest.mark.parametrize(
    "fetch, params",
    [
        ("omniglot", {"subset": "small3"}),
        ("omniglot", {"image_size": 0}),
        ("banking77", {"subset": "valid"}),
        ("parkinsons", {"target": "age"}),
        ("wisdm", {"n_retries": -1}),
    ],
)
def test_fetchers_validate_their_parameters(fetch, params):
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
        getattr(datasets, f"fetch_{fetch}")(**params)


# Parsing the original bytes


@pytest.fixture
def small1(shared, tmp_path):
    pytest.importorskip("PIL")
    original = shared("upstream/omniglot_images_background_small1.zip")
    place(original, tmp_path, "omniglot", "images_background_small1.zip")
    return partial(
        datasets.fetch_omniglot,
        subset="small1",
        data_home=tmp_path,
        download_if_missing=False,
    )


def test_omniglot_equals_the_reference_bit_for_bit(shared, small1):
    omniglot = small1()
    assert omniglot.images.shape == (2720, 28, 28)
    assert omniglot.images.dtype == np.float32
    with np.load(shared("omniglot28.npz")) as reference:
        rows = omniglot.target, omniglot.drawer - 1
        np.testing.assert_array_equal(
            np.rint(omniglot.images * 255), reference["images"][rows]
        )
        for name, part in [
            ("character", omniglot.character),
            ("vinyals_split", omniglot.split),
        ]:
            np.testing.assert_array_equal(part, reference[name][omniglot.target])
        alphabets = reference["alphabet_names"][reference["alphabet"]]
    np.testing.assert_array_equal(
        np.array(omniglot.alphabet_names)[omniglot.alphabet], alphabets[omniglot.target]
    )


def test_omniglot_keeps_the_original_size_on_demand(small1):
    images, target = small1(image_size=105, return_X_y=True)
    assert images.shape == (2720, 105, 105) and set(np.unique(images)) == {0, 1}
    assert np.unique(target, return_counts=True)[1].tolist() == [20] * 136
    assert images.mean() < 0.1


def test_omniglot_rule_of_the_vinyals_split(shared):
    with np.load(shared("omniglot28.npz")) as reference:
        alphabets = reference["alphabet_names"][reference["alphabet"]]
        expected = reference["vinyals_split"]
    split = _omniglot._vinyals_split(np.arange(1623), alphabets)
    np.testing.assert_array_equal(split, expected)
    assert np.bincount(split).tolist() == [1028, 172, 423]


def test_omniglot_joins_background_and_evaluation(monkeypatch, tmp_path):
    """Two tiny archives stand in for the two large ones."""
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "omniglot").mkdir()
    archives = {}
    for name, member in [
        ("background", "Futurama/character02/0326_20.png"),
        ("evaluation", "Tibetan/character01/1556_03.png"),
    ]:
        pixels = np.full((105, 105), name == "background")
        path = tmp_path / "omniglot" / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open(f"images_{name}/{member}", "w") as file:
                image.fromarray(pixels).save(file, format="png")
        archives[name] = RemoteFile("", path.name, sha256(path.read_bytes()))
    monkeypatch.setattr(_omniglot, "_ARCHIVES", archives)
    omniglot = datasets.fetch_omniglot(data_home=tmp_path)
    assert omniglot.images.mean(axis=(1, 2)).tolist() == [0, 1]
    assert omniglot.alphabet_names == ["Futurama", "Tibetan"]
    for name, expected in [
        ("target", [325, 1555]),
        ("alphabet", [0, 1]),
        ("character", [2, 1]),
        ("drawer", [20, 3]),
        ("split", [0, 2]),
    ]:
        assert omniglot[name].tolist() == expected


@pytest.fixture
def banking(shared, tmp_path):
    for part in ("train", "test"):
        original = shared(f"upstream/banking77_{part}.csv")
        place(original, tmp_path, "banking77", f"{part}.csv")
    return partial(
        datasets.fetch_banking77, data_home=tmp_path, download_if_missing=False
    )


def test_banking77_equals_the_reference(shared, banking):
    pandas = pytest.importorskip("pandas")
    reference = pandas.read_csv(shared("banking77.csv.gz"))
    banking77 = banking()
    assert banking77.data == reference["text"].tolist()
    names = np.array(banking77.target_names)
    assert names[banking77.target].tolist() == reference["intent"].tolist()
    assert len(names) == 77


def test_banking77_parts(banking):
    data, target = banking(subset="test", return_X_y=True)
    assert len(data) == 3080 and np.bincount(target).tolist() == [40] * 77
    assert len(banking(subset="train").data) == 10003


PARKINSONS_HEADER = (
    "subject#,age,sex,test_time,motor_UPDRS,total_UPDRS,Jitter(%),Jitter(Abs),"
    "Jitter:RAP,Jitter:PPQ5,Jitter:DDP,Shimmer,Shimmer(dB),Shimmer:APQ3,Shimmer:APQ5,"
    "Shimmer:APQ11,Shimmer:DDA,NHR,HNR,RPDE,DFA,PPE"
)


@pytest.fixture
def parkinsons(shared, tmp_path):
    """The original archive, its table put together again from the shared copy."""
    with gzip.open(shared("parkinsons_telemonitoring.csv.gz"), "rt") as file:
        rows = [line.strip().split(",") for line in file][1:]
    lines = [",".join(cell.removesuffix(".0") for cell in row) for row in rows]
    text = "\n".join([PARKINSONS_HEADER, *lines]).replace("e-0", "e-00")
    (tmp_path / "parkinsons").mkdir()
    path = tmp_path / "parkinsons" / _parkinsons._REMOTE.filename
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_parkinsons._REMOTE.member, text)
    return partial(
        datasets.fetch_parkinsons, data_home=tmp_path, download_if_missing=False
    )


def test_parkinsons_equals_the_reference_in_order_of_time(shared, parkinsons):
    pandas = pytest.importorskip("pandas")
    reference = pandas.read_csv(shared("parkinsons_telemonitoring.csv.gz")).sort_values(
        ["subject", "test_time"], kind="stable"
    )
    table = parkinsons(include_time=True)
    np.testing.assert_array_equal(table.data, reference[table.feature_names])
    np.testing.assert_array_equal(table.target, reference["motor_UPDRS"])
    np.testing.assert_array_equal(table.groups, reference["subject"])
    np.testing.assert_array_equal(table.test_time, reference["test_time"])
    total = parkinsons(target="total_UPDRS").target
    np.testing.assert_array_equal(total, reference["total_UPDRS"])


def test_parkinsons_has_no_time_unless_asked_for(parkinsons):
    pytest.importorskip("pandas")
    X, y, groups = parkinsons(return_X_y_groups=True)
    assert X.shape == (5875, 18) and len(set(groups)) == 42
    table = parkinsons(as_frame=True)
    assert not {"test_time", "motor_UPDRS", "total_UPDRS", "subject"} & set(table.data)
    assert table.frame.columns[[0, -1]].tolist() == ["subject", "motor_UPDRS"]
    assert "Beware of ``test_time``" in table.DESCR


def test_an_archive_without_its_table_is_refused(tmp_path):
    (tmp_path / "parkinsons").mkdir()
    path = tmp_path / "parkinsons" / _parkinsons._REMOTE.filename
    for content in (b"no archive", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        with pytest.raises(OSError, match="is not the file that was expected"):
            datasets.fetch_parkinsons(data_home=tmp_path)


# As published, with the header that general readers of ARFF refuse.
WISDM_NAMES = [
    *(f"{axis}{i}" for axis in "XYZ" for i in range(10)),
    *(
        f"{axis}{name}"
        for name in ("AVG", "PEAK", "ABSOLDEV", "STANDDEV")
        for axis in "XYZ"
    ),
    "RESULTANT",
]
WISDM_HEADER = "\n".join(
    [
        "@relation activity_recognition_labeled",
        "",
        '@attribute "UNIQUE_ID" numeric',
        '@attribute "user" {"33" , "17"} ',
        *(f'@attribute "{name}" numeric' for name in WISDM_NAMES),
        '@attribute "class" { "Walking" , "Jogging" }',
        "",
        "@data",
        "",
    ]
)


def write_wisdm(folder, rows):
    text = (WISDM_HEADER + "\n".join(rows) + "\n").encode()
    (folder / "wisdm").mkdir()
    path = folder / "wisdm" / _wisdm._REMOTE.filename
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(_wisdm._REMOTE.member)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))


def test_wisdm_is_parsed(tmp_path):
    numbers = np.arange(43) / 4
    row = ",".join(map(str, numbers))
    missing = row.replace(f"{numbers[33]}", "?")
    write_wisdm(tmp_path, [f"1,33,{row},Jogging", f'2,17,{missing},"Walking"'])
    with pytest.warns(UserWarning, match="No checksum was ever published"):
        wisdm = datasets.fetch_wisdm(data_home=tmp_path)
    np.testing.assert_array_equal(wisdm.data[0], numbers)
    assert np.flatnonzero(np.isnan(wisdm.data[1])).tolist() == [33]
    assert wisdm.feature_names == WISDM_NAMES and WISDM_NAMES[33] == "XPEAK"
    assert wisdm.target.tolist() == ["Jogging", "Walking"] == wisdm.target_names
    assert wisdm.groups.tolist() == [33, 17]


def test_wisdm_equals_the_reference(shared, tmp_path):
    pandas = pytest.importorskip("pandas")
    reference = pandas.read_csv(shared("wisdm_ar_v11_transformed.csv.gz"))
    values = reference.astype(object).where(reference.notna(), "?")
    rows = [",".join(map(str, row)) for row in values.itertuples()]
    write_wisdm(tmp_path, rows)
    with pytest.warns(UserWarning, match="No checksum"):
        wisdm = datasets.fetch_wisdm(data_home=tmp_path, as_frame=True)
    assert list(wisdm.frame.columns) == list(reference.columns)
    pandas.testing.assert_frame_equal(
        wisdm.frame, reference, check_dtype=False, check_exact=True
    )
    assert wisdm.data.shape == (5418, 43) and len(set(wisdm.groups)) == 36
