"""The verbs. Imports nothing heavy: help and argument errors answer at once, the work's modules come with the work.

Pipeline verbs run their DVC stages, after those before them that changed. `stage` is what dvc.yaml calls.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cardium import __version__
from cardium.errors import CardiumError, closest, harmless, masked, not_installed, unknown
from cardium.pipeline.stages import STAGES
from cardium.process_environment import settle

if TYPE_CHECKING:
    from cardium.config import Settings


# Seconds that an interrupted command is given: longer than it gives what it has started.
_PATIENCE = 45.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 done, 1 a reported error, 2 wrong arguments, 130 interrupted, 143 killed."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    settle()
    with ended_by_signals() as received:
        return _exit_code(arguments, received)


def _exit_code(arguments: argparse.Namespace, received: list[int]) -> int:
    try:
        return int(arguments.run(arguments) or 0)
    except CardiumError as error:
        _print_error(error)
        return 1
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "cardium"):
            raise
        print(f"error: {not_installed(module)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left; the same command goes on where this one stopped.", file=sys.stderr)
        return 128 + received[0] if received else 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        told = _refused(error)
        if told is None:
            raise
        _print_error(told)
        return 1


def _print_error(error: CardiumError) -> None:
    """One line on stderr: names of files may hold what acts on a terminal, addresses a password."""
    print(f"error: {harmless(masked(str(error)))}", file=sys.stderr)


def _refused(error: OSError) -> CardiumError | None:
    """The one line for what the system refuses a command at a file; None for any other error."""
    from pathlib import Path

    from cardium.atomic import cannot_write

    if error.filename is None and error.errno is None:
        return None
    # An open file that cannot grow has no name in the error.
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "A file of this project"
    told = cannot_write(error, Path(name))
    if told is None and error.filename is not None and error.errno is not None:
        told = CardiumError(f"{name}: {os.strerror(error.errno)}: see to that, then run the same command again.")
    return told


@contextlib.contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """Lets SIGINT, SIGTERM and SIGHUP end what is under way as Ctrl-C does, with all that it started; yields those received.

    A library may swallow the interruption, while it is imported for instance: the process then ends a while later all the same.
    Nothing half-written is left by that either. A signal that this process was told to ignore (nohup) stays ignored.
    """
    received: list[int] = []
    insisting: list[threading.Timer] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        if not insisting:
            insisting.append(threading.Timer(_PATIENCE, os._exit, [128 + number]))
            insisting[0].daemon = True
            insisting[0].start()
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for timer in insisting:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest verb."""

    def error(self, message: str) -> Any:
        if "invalid choice" in message and "argument verb" in message:
            given = message.split("invalid choice: ")[1].split("'")[1]
            message = f"unknown verb `{given}`.{closest(given, list(_VERBS))} `cardium --help` lists them."
        print(f"error: {message} ({self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cardium",
        description="Trains, compares, promotes and serves classifiers of cardiac images, scored for the next patient.",
        epilog="The order of a first day: demo (or download + dvc add data), leaderboard, train, promote, predict.",
    )
    parser.add_argument("--version", action="version", version=f"cardium {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True, parser_class=_Parser)
    for name, (help_text, add, run) in _VERBS.items():
        options: dict[str, Any] = {} if help_text is None else {"help": help_text}
        verb = verbs.add_parser(name, description=help_text, **options)
        add(verb)
        verb.set_defaults(run=run)
    return parser


# ---------------------------------------------------------------- arguments


def _nothing(verb: argparse.ArgumentParser) -> None:
    """A verb without arguments."""


def _dataset(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dataset", default="cmri", help="a dataset of params.yaml (default: cmri)")


def _optional(kind: type) -> Any:
    """A converter for options that `mlflow run` passes empty when they were not given."""

    def convert(text: str) -> Any:
        if text == "":
            return None
        number = float(text)  # MLflow passes whole numbers as it got them: 3, 3.0.
        if kind is int and number != int(number):
            raise argparse.ArgumentTypeError(f"{text} is not a whole number")
        return kind(number)

    convert.__name__ = "whole number" if kind is int else "number"
    return convert


def _yes(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0", ""):
        return False
    raise argparse.ArgumentTypeError(f"{text} is neither true nor false")


def _train_arguments(verb: argparse.ArgumentParser) -> None:
    _dataset(verb)
    verb.add_argument("--model", default="mobilenetv2", help="a name of the zoo: `cardium models` lists them")
    verb.add_argument("--protocol", default="", help="honest (grouped, de-duplicated) or published (as the original did)")
    verb.add_argument("--epochs", type=_optional(int), help="epochs at most")
    verb.add_argument("--learning-rate", type=_optional(float), help="the first learning rate")
    verb.add_argument("--weights", default="", help="imagenet, none or auto")
    verb.add_argument("--batch", type=_optional(int), help="images a training step")
    verb.add_argument("--fine-tune", type=_optional(int), help="last layers of the backbone to train too, in a second phase")


def _tune_arguments(verb: argparse.ArgumentParser) -> None:
    _dataset(verb)
    verb.add_argument("--model", default="mobilenetv2", help="a name of the zoo: `cardium models` lists them")
    verb.add_argument(
        "--trials", type=_optional(int), help="trials in all, those of earlier times too (params.yaml: tune.trials)"
    )
    verb.add_argument("--workers", type=_optional(int), help="processes on this machine (params.yaml: tune.workers)")
    verb.add_argument(
        "--space", default="", help="a search space of params.yaml's tune.spaces (default: the one of the model's kind)"
    )
    verb.add_argument(
        "--storage",
        default="",
        metavar="URL",
        help="a database that machines share, such as postgresql://host/name (default: a file)",
    )


def _audit_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("which", nargs="?", default="", metavar="DATASET", help="a dataset of params.yaml (default: cmri)")
    verb.add_argument("--dataset", default="", help="the same, as the other verbs take it")
    flag: dict[str, Any] = {"nargs": "?", "const": True, "default": False, "type": _yes, "metavar": "true|false"}
    verb.add_argument("--strict", **flag, help="exit with 1 when a leak is found")


def _promote_arguments(verb: argparse.ArgumentParser) -> None:
    _dataset(verb)
    flag: dict[str, Any] = {"nargs": "?", "const": True, "default": False, "type": _yes, "metavar": "true|false"}
    verb.add_argument("--rollback", **flag, help="make the previous champion the champion again")
    verb.add_argument("--dry-run", **flag, help="say what would happen and change nothing")
    verb.add_argument(
        "--run", default="", dest="experiment", metavar="FOLDER", help="put an experiment forward in place of the best run"
    )
    verb.add_argument("--version", type=_optional(int), metavar="N", help="with --force: make this version champion")
    verb.add_argument("--force", **flag, help="promote by hand, whatever the rule says; takes --reason")
    verb.add_argument("--reason", default="", metavar="TEXT", help="why, with --force; kept with the version")


def _compare_arguments(verb: argparse.ArgumentParser) -> None:
    for name in ("A", "B"):
        verb.add_argument(name.lower(), metavar=name, help="a run, such as cmri-mobilenetv2, or an experiment's folder")
    _json_argument(verb)


def _json_argument(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="JSON instead of a table")


def _evaluate_arguments(verb: argparse.ArgumentParser) -> None:
    _dataset(verb)
    verb.add_argument(
        "--external", default="", metavar="FOLDER", help="score the trained runs on another collection of the same classes"
    )
    verb.add_argument("--name", default="", help="what the other collection is called (default: its folder's name)")
    verb.add_argument(
        "--run", default="", dest="experiment", metavar="FOLDER", help="score this experiment, on the same test records"
    )


def _report_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dataset", default="", help="a dataset of params.yaml (default: all)")


def _predict_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", nargs="+", metavar="FILE", help="JPEG, PNG, DICOM or NIfTI files; patients' folders or zips")
    verb.add_argument("--dataset", default="cmri", help="whose champion answers (default: cmri)")
    verb.add_argument("--model", default="", help="a registered model, a run folder or an export instead of the champion")
    verb.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def _export_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="RUN", help="a run folder, or a registered model such as models:/cardium-ecg4@champion")
    verb.add_argument("--to", required=True, metavar="FORMAT", help="keras, saved_model or openvino")
    verb.add_argument("--out", default="", metavar="FOLDER", help="where it goes (default: exports/<run>/<format>)")


def _score_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", metavar="FOLDER_OR_TABLE", help="a folder, or a CSV or Parquet table with a column `path`")
    verb.add_argument("--out", required=True, metavar="FILE", help="the Parquet table of answers; one that is there grows")
    verb.add_argument("--dataset", default="cmri", help="whose champion answers (default: cmri)")
    verb.add_argument("--model", default="", help="a registered model or a run folder instead of the champion")
    verb.add_argument("--engine", default="local", help="local (every core of this machine, the default), spark or ray")
    verb.add_argument("--master", default="", help="the Spark master or the Ray address (default: one on this machine)")


def _read_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", nargs="+", metavar="FILE", help="pictures of 12-lead ECG sheets: JPEG, PNG or DICOM")
    verb.add_argument("--out", default="", metavar="FOLDER", help="where the readings go (default: beside each file)")


def _explain_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", nargs="*", metavar="FILE", help="files to explain; without any, test records of the run")
    _dataset(verb)
    verb.add_argument("--model", default="", help="a trained model (default: the recommended one of the dataset)")
    verb.add_argument("--protocol", default="", help="honest (default) or published")
    verb.add_argument(
        "--method",
        default="",
        help="gradcam (default where the model has a map), gradcam++, integrated_gradients, saliency, smoothgrad, occlusion",
    )
    verb.add_argument("--class", default="", dest="of_class", metavar="CLASS", help="what to explain (default: the decision)")
    flag: dict[str, Any] = {"nargs": "?", "const": True, "default": False, "type": _yes, "metavar": "true|false"}
    verb.add_argument("--test-all", **flag, help="test every method on the run, and not only this one")


def _download_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("dataset", help="the collection to fetch: cmri, ecg4, ecg5 or chd")
    verb.add_argument("--force", action="store_true", help="replace what is in data/<dataset>")
    verb.add_argument("--source", default="", help="ecg4: mendeley (the publisher's, the default) or kaggle")


def _ui_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--port", type=int, default=5000, help="the server's port (default: 5000)")


def _models_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("pattern", nargs="?", default="*", help='a shell pattern, such as "*_spatial"')
    _json_argument(verb)


def _leaderboard_arguments(verb: argparse.ArgumentParser) -> None:
    _dataset(verb)
    _json_argument(verb)


def _completion_arguments(verb: argparse.ArgumentParser) -> None:
    from cardium.pipeline.completion import SHELLS

    verb.add_argument("shell", choices=SHELLS, help='put `eval "$(cardium completion bash)"` into ~/.bashrc')


def _repro_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("targets", nargs="*", help="DVC targets, such as train@cmri-mobilenetv2 (default: all)")
    _jobs_argument(verb)


def _jobs_argument(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--jobs",
        type=_optional(int),
        metavar="N",
        help="stages that may run at once (default: one a core, as far as memory allows; one on a GPU)",
    )


def _profile_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", nargs="?", default="", help="demo or study; without it, what is chosen is said")


def _app_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dataset", default="", help="the one dataset whose champion answers (default: all that have one)")
    verb.add_argument(
        "--model",
        action="append",
        default=[],
        help="a run folder or an MLflow model to answer instead of the champions; may be given once a dataset",
    )
    verb.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on; on others than this machine's own a token is asked for"
    )
    verb.add_argument("--port", type=int, default=8800, help="the port (0: any that is free)")


def _plan_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--check", action="store_true", help="write nothing; exit with 1 where plan.yaml is out of date")


def _stage_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("stage")
    verb.add_argument("item")


def _fork_server_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("place")
    verb.add_argument("parent", type=int)
    verb.add_argument("imports", nargs="*")


# ---------------------------------------------------------------- what the verbs do


def _settings(overrides: dict[str, Any] | None = None) -> Settings:
    from cardium import config, workspace

    return config.load(workspace.find_root(), overrides)


def _known_dataset(settings: Settings, dataset: str) -> str:
    if dataset not in settings.datasets:
        raise unknown("dataset", dataset, list(settings.datasets))
    if dataset not in settings.active:
        raise CardiumError(f"{dataset} is not among `datasets` in params.yaml: add it there.")
    return dataset


def _stage(arguments: argparse.Namespace) -> int | None:
    from cardium.pipeline.fork_server import run_there
    from cardium.pipeline.stages import end_with_command, run_stage

    code = run_there(["stage", arguments.stage, arguments.item])
    if code is not None:
        return code
    end_with_command()
    run_stage(_settings(), arguments.stage, arguments.item)
    return None


def _fork_server(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from cardium.pipeline.fork_server import serve

    serve(Path(arguments.place), arguments.parent, arguments.imports, main)


def _repro(arguments: argparse.Namespace) -> None:
    from cardium.pipeline import dvc

    settings = _settings()
    if not dvc.reproduce(settings.root, arguments.targets, jobs=_jobs(arguments)):
        print("Nothing to do: data, code and settings are as they were.")


def _jobs(arguments: argparse.Namespace) -> int:
    """`--jobs`; 0 where it was not given."""
    if arguments.jobs is not None and arguments.jobs < 1:
        raise CardiumError(f"--jobs: {arguments.jobs} is too few; the least is 1.")
    return arguments.jobs or 0


def _target(verb: str) -> Any:
    """A verb that is a DVC stage of a dataset."""

    def run(arguments: argparse.Namespace) -> None:
        from cardium.pipeline import dvc
        from cardium.pipeline.stages import targets_of

        settings = _settings()
        targets = targets_of(settings, verb, _known_dataset(settings, arguments.dataset))
        if not dvc.reproduce(settings.root, targets):
            print(f"Nothing to do: {', '.join(targets)} is as data, code and settings are.")

    return run


def _train(arguments: argparse.Namespace) -> None:
    from cardium.models import parse_name
    from cardium.pipeline import experiment
    from cardium.workspace import RunId

    settings = _settings()
    _known_dataset(settings, arguments.dataset)
    parse_name(arguments.model)
    given = {
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "weights": arguments.weights or None,
        "batch": arguments.batch,
        "fine_tune": arguments.fine_tune,
    }
    overrides = {f"{arguments.dataset}.train.{key}": value for key, value in given.items() if value is not None}
    run = RunId(arguments.dataset, arguments.model, arguments.protocol or "honest")
    experiment.train(settings.root, run, overrides)


def _tune(arguments: argparse.Namespace) -> None:
    import os

    from cardium import tracking
    from cardium.models import parse_name
    from cardium.pipeline import experiment

    settings = _settings()
    dataset = _known_dataset(settings, arguments.dataset)
    parse_name(arguments.model)
    for option in ("trials", "workers"):
        given = getattr(arguments, option)
        if given is not None and given < 1:
            raise CardiumError(f"--{option}: {given} is too few; the least is 1.")
    from cardium.config import run_spec
    from cardium.tuning.search_space import search_space
    from cardium.workspace import RunId

    spec = run_spec(settings, RunId(dataset, arguments.model))
    search_space(settings, spec, arguments.space)  # Its errors come before anything is made.
    # This search takes the run that `mlflow run` has opened; what is made on the way does not.
    os.environ[tracking.REQUESTED] = f"tune {dataset}-{arguments.model}"
    reads = experiment.make_input(settings, settings, spec)
    from cardium.stages.tune import tune_run
    from cardium.workspace import Workspace

    options = {"space": arguments.space, "storage": arguments.storage}
    tune_run(settings, spec, reads, trials=arguments.trials or 0, workers=arguments.workers or 0, **options)
    tracking.log_search(settings, Workspace(settings.root).tuning(dataset, f"{dataset}-{arguments.model}"))


def _evaluate(arguments: argparse.Namespace) -> None:
    if arguments.experiment:
        from pathlib import Path

        from cardium.pipeline import experiment

        experiment.evaluate(_settings(), Path(arguments.experiment))
        return
    _target("evaluate")(arguments)
    if arguments.external:
        from pathlib import Path

        from cardium.evaluation import external
        from cardium.tensorflow_import import import_tensorflow

        import_tensorflow()
        external.evaluate_external(_settings(), arguments.dataset, Path(arguments.external), arguments.name)


def _compare(arguments: argparse.Namespace) -> None:
    import json

    from cardium.evaluation.comparison import compare_runs, comparison_text
    from cardium.evaluation.evaluation import Evaluation
    from cardium.evaluation.experiments import stored_predictions
    from cardium.workspace import Workspace

    settings = _settings()
    names = (_scored_name(settings, arguments.a), _scored_name(settings, arguments.b))
    dataset, other = (name.partition("-")[0] for name in names)
    if dataset != other:
        raise CardiumError(f"{names[0]} is of {dataset}, {names[1]} of {other}: runs of one dataset are compared.")
    places = Workspace(settings.root)
    evaluation = Evaluation.read(places.evaluation(_known_dataset(settings, dataset)), dataset)
    tables = (stored_predictions(settings, evaluation, names[0]), stored_predictions(settings, evaluation, names[1]))
    compared = compare_runs(settings, evaluation.classes, names, tables, patients=evaluation.patients)
    if arguments.json:
        print(json.dumps(compared.to_json()))
        return
    from cardium import atomic

    out = settings.root / "reports" / dataset / "comparisons" / f"{'--'.join(names).replace('/', ',')}.csv"
    atomic.write_text(out, compared.differing.to_csv(index=False, lineterminator="\n"))
    print(comparison_text(compared))
    print(f"Written: {out.relative_to(settings.root).as_posix()}, a line a case that they decide differently.")


def _scored_name(settings: Settings, text: str) -> str:
    """The name on the leaderboard of what a user calls a run: its name, its folder, or an experiment's folder."""
    from pathlib import Path

    from cardium.evaluation.experiments import experiment_name
    from cardium.runs.trained_run import FILE, TrainedRun

    for folder in (Path(text), settings.root / text):
        if (folder / FILE).is_file():
            run = TrainedRun.read(folder)
            below = folder.resolve().is_relative_to((settings.root / "experiments").resolve())
            return experiment_name(settings, folder) if below else run.name
    return text


def _audit(arguments: argparse.Namespace) -> None:
    import json

    from cardium.audit import verdict
    from cardium.pipeline import dvc
    from cardium.workspace import Workspace

    settings = _settings()
    dataset = _known_dataset(settings, arguments.which or arguments.dataset or "cmri")
    ran = dvc.reproduce(settings.root, [f"audit@{dataset}"])
    folder = Workspace(settings.root).audit(dataset)
    report = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    page = (folder / "audit.html").relative_to(settings.root).as_posix()
    if not ran:
        print(f"{harmless(verdict.text(report))}\nNothing to do: {page} is as data, code and settings are.")
    if arguments.strict and report["leaks"]:
        first, rest = report["leaks"][0]["said"], len(report["leaks"]) - 1
        more = f" And {rest} more." if rest else ""
        raise CardiumError(f"{dataset} leaks: {first}{more} See {page}, which says what to do.")


def _promote(arguments: argparse.Namespace) -> None:
    from cardium.evaluation.promotion import Promotion
    from cardium.pipeline import dvc
    from cardium.tensorflow_import import import_tensorflow
    from cardium.tracking import promotion as promoting
    from cardium.workspace import Workspace

    settings = _settings()
    dataset = _known_dataset(settings, arguments.dataset)
    if arguments.force and not arguments.reason.strip():
        raise CardiumError('--force takes a reason that is kept with the version: add --reason "...".')
    if arguments.version is not None and not arguments.force:
        raise CardiumError("--version makes a version champion whatever the rule says: say so with --force and --reason.")
    if arguments.experiment:
        _promote_experiment(settings, arguments)
        return
    if arguments.force:
        if arguments.version is None:
            raise CardiumError("--force takes --version N, a version of the registry, or --run FOLDER, an experiment.")
        promoting.make_champion(settings, dataset, arguments.version, arguments.reason.strip(), dry_run=arguments.dry_run)
        if not arguments.dry_run:
            _tell_of_promotion(settings, dataset)
        return
    if arguments.rollback:
        promoting.rollback(settings, dataset, dry_run=arguments.dry_run)
        if not arguments.dry_run:
            _tell_of_promotion(settings, dataset)
        return
    if arguments.dry_run:
        if first := dvc.would_run(settings.root, f"evaluate@{dataset}"):
            print(f"Dry run: nothing was changed. First {len(first)} stages would run: {', '.join(first)}.")
            print(f"Next: cardium evaluate --dataset {dataset}")
            return
        import_tensorflow()
        promoting.dry_run(settings, dataset)
        return
    dvc.reproduce(settings.root, [f"evaluate@{dataset}"])
    # Asked for by name, it is done again: the registry may have been away, or changed, since.
    dvc.reproduce(settings.root, [f"promote@{dataset}"], single=True, force=True)
    promotion = Promotion.read(Workspace(settings.root).promotion(dataset))
    if promotion is not None and promotion.action == "skipped":
        raise CardiumError(promotion.summary)
    _renew_report(settings, dataset)


def _promote_experiment(settings: Settings, arguments: argparse.Namespace) -> None:
    """Puts the experiment of `--run` forward, which is scored first where it has not been."""
    from pathlib import Path

    from cardium.evaluation.evaluation import Evaluation
    from cardium.evaluation.experiments import experiment_name, scored_experiments
    from cardium.pipeline import dvc, experiment
    from cardium.tensorflow_import import import_tensorflow
    from cardium.tracking import promotion as promoting
    from cardium.workspace import Workspace

    folder = Path(arguments.experiment) if Path(arguments.experiment).exists() else settings.root / arguments.experiment
    name = experiment_name(settings, folder)
    dataset = _known_dataset(settings, name.partition("-")[0])
    if not arguments.dry_run:
        dvc.reproduce(settings.root, [f"evaluate@{dataset}"])
    evaluation = Evaluation.read(Workspace(settings.root).evaluation(dataset), dataset)
    if name not in scored_experiments(settings, evaluation):
        if arguments.dry_run:
            raise CardiumError(
                f"{name} has not been scored on these test records: run `cardium evaluate --run {folder}` first."
            )
        experiment.evaluate(settings, folder)
    import_tensorflow()
    promoting.put_forward(settings, dataset, dry=arguments.dry_run, experiment=name, by_hand=arguments.reason.strip())
    if not arguments.dry_run:
        _tell_of_promotion(settings, dataset)


def _tell_of_promotion(settings: Settings, dataset: str) -> None:
    """Brings promotion.json and the report up to what was changed in the registry by hand, where there is an evaluation."""
    from cardium.evaluation.evaluation import FILE
    from cardium.pipeline import dvc
    from cardium.workspace import Workspace

    if (Workspace(settings.root).evaluation(dataset) / FILE).is_file():
        dvc.reproduce(settings.root, [f"promote@{dataset}"], single=True, force=True)
        _renew_report(settings, dataset)


def _renew_report(settings: Settings, dataset: str) -> None:
    """Makes the report anew where there is one: it says which version is served."""
    from cardium.pipeline import dvc
    from cardium.workspace import Workspace

    if (Workspace(settings.root).report(dataset) / "index.html").is_file():
        dvc.reproduce(settings.root, [f"report@{dataset}"], single=True, force=True)
    else:
        print(f"Next: cardium report --dataset {dataset}")


def _predict(arguments: argparse.Namespace) -> int:
    import json

    from cardium.serving.predict import predict_files, prediction_table
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()

    settings = _settings()
    model = arguments.model or f"models:/cardium-{_known_dataset(settings, arguments.dataset)}@champion"
    rows = predict_files(settings, arguments.files, model)
    if arguments.json:
        for row in rows:
            print(json.dumps(row))
    else:
        print(prediction_table(rows))
    return 1 if any("error" in row for row in rows) else 0


def _export(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from cardium.serving.export import export_run
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    out = Path(arguments.out).expanduser() if arguments.out else None
    print(harmless(export_run(_settings(), arguments.model, arguments.to, out).text))


def _score(arguments: argparse.Namespace) -> int:
    import os
    from pathlib import Path

    from cardium import tracking
    from cardium.batch.score import score_files

    settings = _settings()
    os.environ[tracking.REQUESTED] = f"score {arguments.dataset}"
    model = arguments.model or f"models:/cardium-{_known_dataset(settings, arguments.dataset)}@champion"
    out = Path(arguments.out).expanduser()
    scored = score_files(settings, arguments.source, out, model, arguments.engine or "local", arguments.master)
    print(harmless(scored.text))
    tracking.log_scoring(settings, arguments.dataset, scored.values)
    return 1 if scored.errors == scored.items else 0


def _read(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from cardium.serving.read_sheet import read_file

    failed = False
    for file in arguments.files:
        try:
            print(harmless(read_file(Path(file), Path(arguments.out) if arguments.out else None)))
        except CardiumError as error:
            _print_error(error)
            failed = True
    return 1 if failed else 0


def _app(arguments: argparse.Namespace) -> None:
    settings = _settings()
    datasets = [_known_dataset(settings, arguments.dataset)] if arguments.dataset else settings.active
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    from cardium.app.server import serve

    serve(settings, arguments.host, arguments.port, datasets, arguments.model)


def _explain(arguments: argparse.Namespace) -> int:
    settings = _settings()
    dataset = _known_dataset(settings, arguments.dataset)
    from cardium.datasets import get_collection

    model, protocol = arguments.model or get_collection(dataset).recommended, arguments.protocol or "honest"
    if protocol not in settings.protocols:
        raise CardiumError(f"--protocol: `{protocol}` is not one of {', '.join(settings.protocols)}.")
    from cardium.models import parse_name
    from cardium.workspace import RunId

    run = RunId(dataset, model, protocol)
    if run.name not in settings.plan.joints:  # Made of others, they are no names of the zoo.
        parse_name(model)
    from cardium.tensorflow_import import import_tensorflow

    import_tensorflow()
    files = [file for file in arguments.files if file]  # `mlflow run` passes an empty one where none was given.
    if files:
        from cardium.explain.files import explain_files

        rows = explain_files(settings, run, arguments.method, files, arguments.of_class)
        for row in rows:
            print(harmless(f"{row['file']}: {row['text'] if 'text' in row else 'error: ' + row['error']}"))
        return 1 if any("error" in row for row in rows) else 0
    from cardium import tracking
    from cardium.stages.explain import explain_run

    folder = explain_run(settings, run, arguments.method, of_class=arguments.of_class, test_all=arguments.test_all)
    tracking.log_explanations(settings, folder)
    return 0


def _sync(_: argparse.Namespace) -> int:
    from cardium import tracking

    settings = _settings()
    summary = tracking.sync(settings)
    print(tracking.sync_text(settings, summary))
    return 1 if summary["failed"] else 0


def _ui(arguments: argparse.Namespace) -> None:
    """Prints the links, then becomes the MLflow server."""
    from cardium.tracking.store import tracking_uri
    from cardium.tracking.views import links

    settings = _settings()
    address = f"http://127.0.0.1:{arguments.port}"
    uri = tracking_uri(settings)
    if uri.startswith("http"):
        address = uri.rstrip("/")
    for dataset, link in links(settings, address).items():
        print(f"{dataset}, runs by test score: {link}")
    if uri.startswith("http"):
        print("The store is a server: open a link in a browser.")
        return
    print(f"All experiments: {address}. Ctrl-C ends the server.", flush=True)
    os.chdir(settings.root)
    command = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(arguments.port)]
    os.execv(sys.executable, [sys.executable, *command])


def _status(arguments: argparse.Namespace) -> None:
    import json

    from cardium.pipeline.status import project_status, status_text

    status = project_status(_settings())
    print(json.dumps(status.to_json()) if arguments.json else harmless(status_text(status)))


def _doctor(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from cardium.pipeline.doctor import examine, findings_text

    findings = examine(_settings())
    print(json.dumps([asdict(one) for one in findings]) if arguments.json else harmless(findings_text(findings)))
    return 1 if any(one.state == "missing" for one in findings) else 0


def _completion(arguments: argparse.Namespace) -> None:
    from cardium.pipeline.completion import completion

    print(completion(_parser(), arguments.shell), end="")


def _models(arguments: argparse.Namespace) -> None:
    import json

    from cardium.models import list_models

    names = list_models(arguments.pattern)
    if not names:
        raise CardiumError(f"No model matches `{arguments.pattern}`. Known: {', '.join(list_models())}.")
    print(json.dumps(names) if arguments.json else "\n".join(names))


def _leaderboard(arguments: argparse.Namespace) -> None:
    from cardium.reporting import overview

    settings = _settings()
    dataset = _known_dataset(settings, arguments.dataset)
    if arguments.json:
        import json

        print(json.dumps(overview.leaderboard_rows(settings, dataset)))
    else:
        print(overview.leaderboard(settings, dataset))


def _report(arguments: argparse.Namespace) -> None:
    from cardium.pipeline import dvc

    settings = _settings()
    datasets = [_known_dataset(settings, arguments.dataset)] if arguments.dataset else settings.active
    for dataset in datasets:
        dvc.reproduce(settings.root, [f"report@{dataset}"])
        # Scores elsewhere and of experiments are shown where they are, and no stage makes them: asked for, it is made anew.
        dvc.reproduce(settings.root, [f"report@{dataset}"], single=True, force=True)
    print("Open reports/index.html in a browser.")


def _demo_data(_: argparse.Namespace) -> None:
    from cardium import workspace
    from cardium.pipeline import dvc

    dvc.make_demo_data(workspace.find_root())
    print("data/ is what data.dvc tracks. Next: dvc repro")


def _demo(arguments: argparse.Namespace) -> None:
    from cardium.pipeline import dvc
    from cardium.reporting import overview

    _demo_data(arguments)
    settings = _settings()
    if not dvc.reproduce(settings.root, [], jobs=_jobs(arguments)):
        print("Nothing to do: data, code and settings are as they were.")
    print()
    print(overview.demo_summary(settings))


def _download(arguments: argparse.Namespace) -> None:
    from cardium.download.fetch import download

    settings = _settings()
    limits, decoded = settings.download, settings.ingest.limits
    download(arguments.dataset, settings.root, force=arguments.force, source=arguments.source, limits=limits, decoded=decoded)


def _profile(arguments: argparse.Namespace) -> None:
    from cardium import config, workspace

    root = workspace.find_root()
    if arguments.name:
        config.choose_profile(root, arguments.name)
        config.write_plan(config.load(root))
    settings = config.load(root)
    print(f"Profile {settings.profile}: {', '.join(settings.active)}; {_counts(settings)}. Next: dvc repro")


def _plan(arguments: argparse.Namespace) -> None:
    from cardium import config

    settings = _settings()
    if arguments.check:
        config.check_plan(settings)
        print(f"plan.yaml is what params.yaml comes to: {_counts(settings)}.")
    elif config.write_plan(settings):
        print(f"Wrote plan.yaml: {_counts(settings)}. Next: dvc repro")
    else:
        print(f"Nothing to do: plan.yaml is what params.yaml comes to: {_counts(settings)}.")


def _counts(settings: Settings) -> str:
    plan = settings.plan
    return f"{len(plan.runs)} runs, {len(plan.joints)} made of them, {len(plan.banks)} banks"


def _params(arguments: argparse.Namespace) -> None:
    import dataclasses
    import json

    import yaml

    table = dataclasses.asdict(_settings())
    sections = table.pop("datasets")
    table = {"datasets": table.pop("active"), **table, **sections}
    for internal in ("root", "overrides"):
        table.pop(internal)
    if arguments.json:
        print(json.dumps(table))
    else:
        print(yaml.safe_dump(table, sort_keys=False, default_flow_style=None, width=120), end="")


# Verb -> its help (None: not listed), what adds its arguments, what runs it.
Verb = tuple[str | None, Any, Any]
_OWN: dict[str, Verb] = {
    "demo": ("make the demo data, run the whole pipeline on it, and show what came out", _jobs_argument, _demo),
    "demo-data": ("generate the demo data into data/ and check it against data.dvc", _nothing, _demo_data),
    "download": ("fetch a real collection into data/<dataset>", _download_arguments, _download),
    "plan": ("write plan.yaml: what params.yaml comes to, which the pipeline reads", _plan_arguments, _plan),
    "repro": (
        "run what changed of the pipeline (dvc repro), making the demo data where there is none",
        _repro_arguments,
        _repro,
    ),
    "audit": ("how much of a score is real: copies, optimism, shortcuts, labels", _audit_arguments, _audit),
    "models": ("list the model zoo", _models_arguments, _models),
    "train": ("train one model; overrides make an experiment beside the pipeline", _train_arguments, _train),
    "tune": ("search a model's settings by validation scores, never the test fold", _tune_arguments, _tune),
    "evaluate": (
        "open the test fold: scores with intervals, leaderboard; or score on another collection",
        _evaluate_arguments,
        _evaluate,
    ),
    "leaderboard": ("print the last evaluation's leaderboard", _leaderboard_arguments, _leaderboard),
    "compare": ("compare two scored runs: paired difference, where they differ", _compare_arguments, _compare),
    "promote": ("make the best run the champion if it is better than the present one", _promote_arguments, _promote),
    "report": ("one page a dataset: what to use and how far to trust it", _report_arguments, _report),
    "predict": ("classify image files or patients with a registered model, without a server", _predict_arguments, _predict),
    "app": ("open a page for people: files in, the champions' answers out; nothing is stored", _app_arguments, _app),
    "export": ("write a run in another format, compared with the run before it appears", _export_arguments, _export),
    "score": (
        "classify a million files: a table of answers, on every core, Spark or Ray, resumed after a kill",
        _score_arguments,
        _score,
    ),
    "read": ("read ECG sheets: their leads as CSV and WFDB, where they are, and what was doubtful", _read_arguments, _read),
    "explain": ("show where a trained model looked, and test how far that is to be trusted", _explain_arguments, _explain),
    "status": ("what is made, out of date, at work and served", _json_argument, _status),
    "doctor": ("whether this machine and clone have what cardium needs", _json_argument, _doctor),
    "completion": ("print a script by which the shell completes verbs and options", _completion_arguments, _completion),
    "ui": ("open the MLflow UI on the project's store, with a link to each dataset's runs by score", _ui_arguments, _ui),
    "sync": ("log to MLflow what is missing there, each run once", _nothing, _sync),
    "profile": ("choose what params.yaml runs: demo or study", _profile_arguments, _profile),
    "params": ("print the settings that params.yaml comes to", _json_argument, _params),
    "stage": (None, _stage_arguments, _stage),
    "fork-server": (None, _fork_server_arguments, _fork_server),
}


def _in_order(own: dict[str, Verb]) -> dict[str, Verb]:
    """All verbs in the order of a first day: what comes before the pipeline, its stages, what comes after.

    A stage whose row has a help text is a command without options of its own.
    """
    plain = {name: (stage.help, _dataset, _target(name)) for name, stage in STAGES.items() if stage.help}
    first = list(own)[: list(own).index("repro") + 1]
    names = dict.fromkeys([*first, *(name for name in STAGES if name in own or name in plain), *own])
    return {name: own.get(name) or plain[name] for name in names}


_VERBS = _in_order(_OWN)
