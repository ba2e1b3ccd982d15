"""The command line: ``raydom COMMAND ...``. Each command is a configuration class and a function.

Only the parser of the command that was asked for is built, and only its function is imported.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import shlex
import signal
import sys
import threading
import types
import typing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydom import commands
from raydom.config import from_dict
from raydom.config.secrets import check_no_secrets
from raydom.errors import ClusterError, ConfigError, DataError, DivergedError, StoppedError


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the command line."""

    config: type
    function: str
    """package.module:function, called with the configuration; returns the exit code."""
    summary: str


COMMANDS: dict[str, Command] = {
    "demo": Command(commands.DemoConfig, "raydom.demo:demo", "run the main job on two small synthetic domains"),
    "ingest": Command(commands.IngestConfig, "raydom.cluster.commands:ingest", "read image files into a collection"),
    "info": Command(commands.InfoConfig, "raydom.cluster.commands:info", "tell what a collection holds"),
    "pack": Command(commands.PackConfig, "raydom.cluster.commands:pack", "pack a collection into few Parquet files"),
    "domains": Command(
        commands.FindDomainsConfig, "raydom.cluster.commands:domains", "cluster images by colour into domains"
    ),
    "synthesize": Command(
        commands.SynthesizeConfig, "raydom.cluster.commands:synthesize", "draw cells with their masks, in any number"
    ),
    "train supervised": Command(
        commands.SupervisedConfig, "raydom.cluster.commands:train_supervised", "train a segmentation model"
    ),
    "train dann": Command(
        commands.DannConfig, "raydom.cluster.commands:train_adaptation", "adapt a U-Net by domain classifiers"
    ),
    "train output-adversary": Command(
        commands.OutputAdversaryConfig,
        "raydom.cluster.commands:train_adaptation",
        "adapt by an adversary on labels",
    ),
    "train entropy": Command(
        commands.EntropyConfig, "raydom.cluster.commands:train_adaptation", "adapt by certainty on the target"
    ),
    "train classifier-discrepancy": Command(
        commands.DiscrepancyConfig, "raydom.cluster.commands:train_adaptation", "adapt a U-Net by two classifiers"
    ),
    "train mean-teacher": Command(
        commands.MeanTeacherConfig, "raydom.cluster.commands:train_adaptation", "adapt by self-training"
    ),
    "train cyclegan": Command(
        commands.CycleGanConfig, "raydom.cluster.commands:train_translation", "learn to translate between two domains"
    ),
    "train drit": Command(
        commands.DritConfig, "raydom.cluster.commands:train_translation", "learn to translate between domains"
    ),
    "tune style": Command(
        commands.TuneStyleConfig, "raydom.cluster.commands:tune_style", "search the style that brings a model back"
    ),
    **{
        f"tune train {name}": Command(
            config, "raydom.cluster.commands:tune_training", f"search the settings of raydom train {name}"
        )
        for name, config in commands.TUNED.items()
    },
    "stylize": Command(
        commands.StylizeConfig, "raydom.cluster.commands:stylize", "make images look like a style image"
    ),
    "segment": Command(
        commands.SegmentConfig, "raydom.cluster.commands:segment", "segment a collection, stylised or not"
    ),
    "neurons train": Command(
        commands.NeuronTrainConfig, "raydom.cluster.commands:train_neurons", "train a forest to tell borders of neurons"
    ),
    "neurons segment": Command(
        commands.NeuronSegmentConfig, "raydom.cluster.commands:segment_neurons", "segment neurons by a multicut"
    ),
    "neurons show": Command(
        commands.NeuronShowConfig, "raydom.cluster.commands:show_neurons", "draw segmented neurons and what is wrong"
    ),
    "neurons compare": Command(
        commands.NeuronCompareConfig,
        "raydom.cluster.commands:compare_neurons",
        "score what stylised images are worth in training such a forest",
    ),
    "evaluate": Command(commands.EvaluateConfig, "raydom.cluster.commands:evaluate", "score labels against the truth"),
    "compare": Command(
        commands.CompareConfig, "raydom.cluster.commands:compare", "score models x style methods on a target"
    ),
    "plan": Command(
        commands.PlanConfig, "raydom.cli:plan", "tell what a block job takes and costs, from a pilot of a few blocks"
    ),
    "submit": Command(
        commands.SubmitConfig, "raydom.cluster.submission:submit", "run any of these on a cluster far away"
    ),
    "jobs": Command(commands.JobsConfig, "raydom.cluster.submission:jobs", "list what was submitted to a cluster"),
    "logs": Command(commands.LogsConfig, "raydom.cluster.submission:logs", "show or follow what a job prints"),
    "stop": Command(
        commands.StopConfig, "raydom.cluster.submission:stop", "stop a job; it goes on when submitted again"
    ),
}
LOCAL = ("submit", "jobs", "logs", "stop")
"""Commands about jobs, which are none."""
INTERRUPTED, STOPPED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, as shells have them."""

INLINE = (
    "BlockConfig", "ClusterConfig", "TrainRunConfig", "RunConfig", "StyleConfig", "StyleOptions", "TrainConfig",
    "ImageFilter", "MembraneConfig", "PredictionConfig", "CellConfig", "SearchConfig", "TruthConfig", "NeuronConfig",
    *(typing.get_type_hints(config)["training"].__name__ for config in commands.TUNED.values()),
)  # fmt: skip
"""Parts of a configuration whose fields are options without a prefix; others are prefixed, as in --nst.steps."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``raydom`` with these arguments; returns the exit code: 0 done, 1 part failed, 2 refused, 143 stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it: your own methods lie there
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    named = _named(arguments)
    if named is not None:
        return run_command(*named)
    known = sorted(name for name in COMMANDS if name.split()[0] == arguments[0]) or list(COMMANDS)
    if len(arguments) > 1 and arguments[1] in ("-h", "--help") and known != list(COMMANDS):
        print("\n".join(f"raydom {name}: {COMMANDS[name].summary}" for name in known))
        return 0
    print(f"raydom: there is no command {' '.join(arguments[:2])!r}; there is: {', '.join(known)}.", file=sys.stderr)
    return 2


def _named(arguments: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """The command that these words begin with, and the words after it."""
    names = ((" ".join(arguments[:words]), arguments[words:]) for words in (3, 2, 1))
    return next((named for named in names if named[0] in COMMANDS), None)


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Parse the arguments of one command and call it; used by the pages in ``jobs/`` as well."""
    command = COMMANDS[name]
    logging.basicConfig(level=logging.WARNING, format="raydom: %(levelname)s: %(message)s")
    try:
        config = parse(name, arguments)
        if name not in LOCAL:  # which need no keys of stores here
            _check_stores(config)
        module, function = command.function.split(":")
        with _heeding_sigterm():
            code: int = getattr(importlib.import_module(module), function)(config)
    except (ConfigError, DataError, FileNotFoundError, PermissionError) as error:
        print(f"raydom {name}: {error}", file=sys.stderr)
        return 2
    except (DivergedError, ClusterError, OSError) as error:
        print(f"raydom {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if _told_to_stop.is_set():
            print(f"raydom {name}: told to stop. The same command goes on where it stopped.", file=sys.stderr)
            return STOPPED
        print(f"\nraydom {name}: interrupted. The same command goes on where it stopped.", file=sys.stderr)
        return INTERRUPTED
    except StoppedError as error:
        print(f"raydom {name}: {error} The same command goes on where it stopped.", file=sys.stderr)
        return STOPPED
    if code == 1:  # ingest lists its refused files; blocks can be retried
        shown = shlex.join(["raydom", *name.split(), *(a for a in arguments if a != "--retry-failed")])
        if name in ("stylize", "segment", "compare", "neurons segment"):
            print(f"To try only the failed ones again:\n  {shown} --retry-failed", file=sys.stderr)
    return code


_told_to_stop = threading.Event()


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does, closing what is open; block jobs put it off (see ``draining``)."""

    def stop(*_: Any) -> None:
        _told_to_stop.set()
        raise KeyboardInterrupt  # Ray, while it waits, lets no other exception of a handler through

    _told_to_stop.clear()
    is_ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_stores(config: Any) -> None:
    """Refuse object stores that do not answer, keys that they do not take, and buckets that are not there.

    Raises:
        ConfigError: Naming the URL and the remedy.
    """
    urls = {"/".join(url.split("/", 3)[:3]): url for url in _urls(config)}  # one a bucket
    if urls:
        from raydom.storage import stores

        for url in urls.values():
            if stores.protocol_of(url) in stores.STORES:
                stores.check(url)


def _urls(value: Any) -> Iterator[str]:
    """All URLs in a configuration."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _urls(getattr(value, field.name))
    elif isinstance(value, tuple):
        for one in value:
            yield from _urls(one)
    elif isinstance(value, str) and "://" in value:
        yield value


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The configuration that the arguments of a command (and the YAML file that they may name) describe."""
    from jsonargparse import ArgumentParser

    command = COMMANDS[name]
    parser = ArgumentParser(prog=f"raydom {name}", description=_doc(command.config))
    parser.add_argument("--config", action="config", help="YAML file with options of this command, by their long names")
    options = list(_options(command.config))
    for option in options:
        parser.add_argument(*option.flags, **option.arguments)
    job: Sequence[str] = ()
    if any(option.rest for option in options):
        arguments, job = _split(arguments, options)
    for option in options:
        if option.repeat:
            arguments = _gathered(arguments, option.flags[0])
    namespace = parser.parse_args(list(arguments))
    values: dict[str, Any] = {}
    for option in options:
        value: Any = _LOOKED_AT[name](job) if option.rest else _lookup(namespace, option.dest)
        if value is None and option.optional:
            continue
        place = values
        for step in option.path[:-1]:
            place = place.setdefault(step, {})
        words = option.comma and isinstance(value, str)
        place[option.path[-1]] = [word for word in value.split(",") if word] if words else value
    config: Any = from_dict(command.config, values)
    check_no_secrets(config)
    return config


@dataclass(frozen=True, slots=True)
class _Option:
    """One field of a configuration as an option of the command line."""

    path: tuple[str, ...]
    flags: tuple[str, ...]
    dest: str
    arguments: dict[str, Any]
    optional: bool
    comma: bool
    repeat: bool
    rest: bool


def _options(cls: type, path: tuple[str, ...] = (), prefix: str = "", made: Any = None) -> Iterator[_Option]:
    """The options of a configuration class; ``made``: what the outer class has where none of them is given."""
    hints, help_of = typing.get_type_hints(cls), _field_docs(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            inner = "" if typing.cast("type", hint).__name__ in INLINE else field.name.replace("_", "-") + "."
            factory = field.default_factory
            inside = None if factory is dataclasses.MISSING else factory()
            yield from _options(typing.cast("type", hint), (*path, field.name), prefix + inner, inside)
            continue
        flag = field.metadata.get("flag", "--" + prefix + field.name.replace("_", "-"))
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = None if field.default is dataclasses.MISSING else field.default
        default = default if made is None else getattr(made, field.name)
        arguments: dict[str, Any] = {"help": help_of.get(field.name, "")}
        comma = bool(field.metadata.get("comma"))
        if hint is bool:
            arguments |= {"action": "store_true"}
        elif comma:
            arguments |= {"type": typing.Union[str, list[str]], "default": ",".join(default or ())}  # noqa: UP007
        elif typing.get_origin(hint) is tuple:
            item = typing.get_args(hint)[0]
            if field.metadata.get("rest"):
                arguments |= {"nargs": "*", "type": item}
            elif field.metadata.get("repeat"):
                arguments |= {"nargs": "+", "type": item}
                arguments |= {"required": True} if required else {"default": list(default or ())}
            elif field.metadata.get("positional"):
                arguments |= {"nargs": "+", "type": item}
            else:
                arguments |= {"nargs": "*", "type": item, "default": list(default or ())}
        else:
            arguments |= {"type": _plain(hint)}
            if not field.metadata.get("positional"):
                arguments |= {"required": True} if required else {"default": default}
        rest = bool(field.metadata.get("rest"))
        if rest or field.metadata.get("positional"):
            flag = prefix + field.name
        dest = flag.lstrip("-").replace("-", "_")
        repeat = bool(field.metadata.get("repeat"))
        yield _Option((*path, field.name), (flag,), dest, arguments, not required, comma, repeat, rest)


def _split(arguments: Sequence[str], options: Sequence[_Option]) -> tuple[list[str], list[str]]:
    """Which of these words are options of this command, wherever they stand, and which are another command."""
    known = {flag: option for option in options for flag in option.flags if flag.startswith("--")}
    own: list[str] = []
    rest: list[str] = []
    words = deque(arguments)
    while words:
        word = words.popleft()
        option = known.get(word.partition("=")[0])
        if option is not None:
            has_value = "=" in word or option.arguments.get("action") == "store_true"
            own += [word] if has_value or not words else [word, words.popleft()]
            while option.arguments.get("nargs") and option.arguments["type"] is int and words and words[0].isdecimal():
                own.append(words.popleft())
        elif not rest and word in ("-h", "--help"):
            own.append(word)
        elif rest or word != "--":
            rest.append(word)
    return own, rest


def _submitted(words: Sequence[str]) -> list[str]:
    """The words of a job, after it was looked at here: what it refuses there costs more.

    Raises:
        ConfigError: If they are no job, or one that cannot be done elsewhere.
    """
    named = _named(words)
    if named is None or named[0] in LOCAL:
        known = ", ".join(name for name in COMMANDS if name not in LOCAL)
        raise ConfigError(f"{' '.join(words[:2]) or 'nothing'!r} is no job to submit; there is: {known}.")
    commands.check_submitted(named[0], parse(*named))
    return [*named[0].split(), *named[1]]


def _planned(words: Sequence[str]) -> list[str]:
    """The words of a job to be planned.

    Raises:
        ConfigError: If they are no job, or one that cannot be planned.
    """
    named = _named(words)
    known = ", ".join(commands.PLANNED)
    if named is None:
        raise ConfigError(f"{' '.join(words[:2]) or 'nothing'!r} is no job to plan; there is: {known}.")
    if named[0] not in commands.PLANNED:
        raise ConfigError(commands.why_not_planned(named[0]))
    return [*named[0].split(), *named[1]]


_LOOKED_AT = {"submit": _submitted, "plan": _planned}
"""What checks the job that is given to a command."""


def plan(config: commands.PlanConfig) -> int:
    """Forecast a job."""
    from raydom.cluster.plan import plan as run

    named = _named(config.job)
    assert named is not None  # as was looked at when it was parsed
    return run(config, parse(*named))


def _gathered(arguments: Sequence[str], flag: str) -> list[str]:
    """``--model A --model=B`` as ``--model A B``: the parser would keep only the last."""
    rest: list[str] = []
    values: list[str] = []
    taking = False
    for word in arguments:
        if word == flag or word.startswith(f"{flag}="):
            taking = True
            values += [word.partition("=")[2]] if word != flag else []
        elif taking and not word.startswith("--"):
            values.append(word)
        else:
            taking = False
            rest.append(word)
    return [*rest, flag, *values] if values else rest


def _plain(hint: Any) -> Any:
    """``int | None`` as the ``Optional[int]`` that the parser shows more briefly."""
    return typing.Optional[typing.get_args(hint)[0]] if isinstance(hint, types.UnionType) else hint  # noqa: UP045


def _lookup(namespace: Any, dest: str) -> Any:
    for step in dest.split("."):
        namespace = namespace.get(step) if isinstance(namespace, Mapping) else getattr(namespace, step, None)
    return namespace


def _doc(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _field_docs(cls: type) -> dict[str, str]:
    """The docstring below each field of a class, those of the classes that it extends included."""
    from docstring_parser import parse_from_object

    entries = [entry for part in reversed(cls.__mro__[:-1]) for entry in parse_from_object(part).params]
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in entries}


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "raydom: domain adaptation of microscopy image collections on Ray",
            "",
            "usage: raydom COMMAND [OPTIONS]        raydom COMMAND --help tells the options",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
