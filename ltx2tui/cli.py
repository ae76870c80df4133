"""The console script: the commands, their arguments, and the exit codes. Each command's own code loads when it is called.

Exit codes: 0 done, 1 failed, 2 called wrongly, 130 stopped. `main` owns them.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ltx2core.errors import Ltx2Error


class Argument(NamedTuple):
    """One argument of a command, as argparse takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]


class Command(NamedTuple):
    """A command: its words, its module in `commands`, what it does, an example, and its arguments."""

    words: str
    module: str
    help: str
    example: str
    arguments: tuple[Argument, ...] = ()


def _argument(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


JSON = _argument("--json", action="store_true", help="print JSON, for scripts")
CONFIG = _argument("--config", type=Path, metavar="FILE", required=True, help="the config whose clips and captions are meant")
NEEDS_CONFIG = _argument("--config", type=Path, metavar="FILE", help="a config, to compare the cache with what it needs")
LORA = _argument("file", type=Path, metavar="FILE", help="the LoRA")
HEADLESS = _argument("--headless", action="store_true", help="plain progress lines instead of the app")

COMMANDS: tuple[Command, ...] = (
    Command(
        "demo",
        "demo",
        "make clips, train a LoRA on the built-in model, show before and after",
        "ltx2tui demo --headless",
        (
            HEADLESS,
            _argument("--out", type=Path, metavar="DIR", help="where everything is written (default: the root)"),
            _argument("--steps", type=int, metavar="N", help="train this many steps instead of the demo's own number"),
        ),
    ),
    Command(
        "train",
        "train",
        "train a LoRA from a config file",
        "ltx2tui train --config config.json --headless",
        (
            _argument("--config", type=Path, metavar="FILE", help="config.json; with --resume the run's own by default"),
            HEADLESS,
            _argument("--run", metavar="NAME", help="name of the run (default: the config's name and the time)"),
            _argument("--resume", action="store_true", help="go on from the last checkpoint (of --run, or of the newest run)"),
        ),
    ),
    Command(
        "attach",
        "attach",
        "watch a run, live or past",
        "ltx2tui attach my-run",
        (_argument("run", nargs="?", metavar="RUN", help="its name (default: the one that trains, else the newest)"),),
    ),
    Command("runs", "runs", "list the runs and what they do", "ltx2tui runs --json", (JSON,)),
    Command(
        "stop",
        "stop",
        "ask a run to stop after its step, with a checkpoint",
        "ltx2tui stop my-run",
        (_argument("run", metavar="RUN", help="its name"),),
    ),
    Command(
        "check",
        "check",
        "look at clips before anything is spent on them",
        "ltx2tui check clips/",
        (
            _argument("path", type=Path, metavar="PATH", help="a folder of clips, or a dataset list file"),
            JSON,
            _argument("--quick", action="store_true", help="headers only: no cuts, bars, stills, copies or clipped sound"),
            _argument("--fix", action="store_true", help="write mended copies into a folder of their own, and check those"),
            _argument("--out", type=Path, metavar="DIR", help="the folder for --fix (default: PATH-fixed, beside it)"),
        ),
    ),
    Command(
        "probe",
        "probe",
        "say what this machine is",
        "ltx2tui probe --measure",
        (JSON, _argument("--measure", action="store_true", help="measure how fast the GPU is too, about ten seconds, and remember it")),
    ),
    Command(
        "plan",
        "plan",
        "say what a config needs on a card, how long it takes, and what would be better",
        "ltx2tui plan --config config.json --card 4090 --ram-gib 64",
        (
            _argument("--config", metavar="FILE", help="a config.json, a run, a plan or a preset (default: the usual run on LTX-2)"),
            _argument("--card", metavar="NAME", help="plan for this card (default: the one that is here)"),
            _argument("--gpu-memory-gib", type=float, metavar="G", help="plan for a card of so much memory"),
            _argument("--gpus", type=int, metavar="N", help="plan for so many of it in one machine (default: those that are here)"),
            _argument("--ram-gib", type=float, metavar="R", help="RAM of that machine (default: 64)"),
            _argument("--goal", choices=("fastest", "best_quality", "longest"), help="plan what is recommended for this goal"),
            _argument("--history", action="store_true", help="say how near the predictions for past runs were, phase by phase"),
            JSON,
        ),
    ),
    Command(
        "presets",
        "presets",
        "list the presets, by card and by what is learned",
        "ltx2tui presets --gpu-memory-gb 24",
        (
            _argument("--gpu-memory-gb", type=int, metavar="G", help="only those for a card of so much memory"),
            _argument("--gpus", type=int, metavar="N", help="only those for so many cards in one machine"),
            JSON,
        ),
    ),
    Command(
        "config check",
        "config_check",
        "say what each key of a config will do, and what is wrong with it",
        "ltx2tui config check config.json",
        (_argument("file", type=Path, metavar="FILE", help="config.json or a dataset list"), JSON),
    ),
    Command(
        "explain",
        "explain",
        "say what a key of config.json means",
        "ltx2tui explain lora_rank",
        (_argument("key", metavar="KEY", help="the key"),),
    ),
    Command(
        "diff",
        "diff",
        "say in which keys two configs, runs, plans or presets differ, and what those do",
        "ltx2tui diff my-run config.json",
        (
            _argument("first", metavar="A", help="a config.json, a run, a plan or a preset"),
            _argument("second", metavar="B", help="another"),
            JSON,
        ),
    ),
    Command(
        "export",
        "export",
        "write the config of a preset, a run or a plan, for this program or for SimpleTuner",
        "ltx2tui export my-run --out config.json --for simpletuner",
        (
            _argument("source", metavar="SOURCE", help="a preset, a run, a plan or a config.json"),
            _argument("--out", type=Path, metavar="FILE", required=True, help="the config to write; its dataset list goes beside it"),
            _argument("--for", dest="program", choices=("ltx2tui", "simpletuner"), default="ltx2tui", help="who reads it"),
            JSON,
        ),
    ),
    Command(
        "import",
        "import_settings",
        "read a config of SimpleTuner's or of the official LTX-2 trainer; say what was kept, changed and refused",
        "ltx2tui import old/config.json --out config.json",
        (
            _argument("file", type=Path, metavar="FILE", help="SimpleTuner's config.json, or the LTX-2 trainer's YAML"),
            _argument("--out", type=Path, metavar="FILE", default=Path("config.json"), help="the config to write (default: config.json)"),
            _argument("--clips", metavar="DIR", help="the folder of clips, which the LTX-2 trainer's settings do not name"),
            JSON,
        ),
    ),
    Command(
        "configure",
        "configure",
        "answer questions, get config.json and datasets.json",
        "ltx2tui configure --out config.json",
        (_argument("--out", type=Path, metavar="FILE", default=Path("config.json"), help="the config to write (default: config.json)"),),
    ),
    Command(
        "sample",
        "sample",
        "make a video with a trained LoRA",
        'ltx2tui sample --config config.json --lora my.safetensors --prompt "A red kite circles."',
        (
            _argument("--config", type=Path, metavar="FILE", required=True, help="a config that names the model and the sample's size"),
            _argument("--lora", type=Path, metavar="FILE", help="the LoRA; without one, the model as it is"),
            _argument("--prompt", metavar="TEXT", required=True, help="what the video shows"),
            _argument("--image", type=Path, metavar="FILE", help="a picture or clip: the video begins with its first frame"),
            _argument("--audio", type=Path, metavar="FILE", help="a sound, or a clip with one: the video follows it"),
            _argument("--reference", type=Path, metavar="FILE", help="a clip or picture that an IC-LoRA is shown"),
            _argument("--out", type=Path, metavar="DIR", default=Path("sample"), help="folder for sample.mp4 (default: sample)"),
        ),
    ),
    Command(
        "cache build", "cache", "make the cache of a config without training", "ltx2tui cache build --config config.json", (CONFIG, JSON)
    ),
    Command(
        "cache verify",
        "cache",
        "read every entry, name those that are damaged; with a config, decode latents again and compare them with the clips",
        "ltx2tui cache verify --config config.json --clips 20",
        (
            NEEDS_CONFIG,
            _argument("--clips", type=int, default=4, metavar="N", help="how many clips to compare, spread over all (default: 4)"),
            JSON,
        ),
    ),
    Command(
        "cache prune",
        "cache",
        "remove every entry that neither a config nor a run in runs/ needs",
        "ltx2tui cache prune --config config.json --list",
        (
            _argument("--config", type=Path, metavar="FILE", help="a config whose entries are kept, beside those of the runs"),
            _argument("--list", action="store_true", help="say what would be removed, and remove nothing"),
            JSON,
        ),
    ),
    Command("cache stat", "cache", "say how large the cache is, and what a config lacks in it", "ltx2tui cache stat", (NEEDS_CONFIG, JSON)),
    Command(
        "lora info",
        "lora_info",
        "say what a LoRA file holds",
        "ltx2tui lora info my.safetensors",
        (LORA, JSON),
    ),
    Command(
        "lora verify",
        "lora_verify",
        "say whether a LoRA file fits a base model, and how much it changes",
        "ltx2tui lora verify my.safetensors --base ltx-2-19b-dev.safetensors",
        (
            LORA,
            _argument("--base", metavar="MODEL", required=True, help="the model: a file, a folder, a hub name that is here, or nano"),
            JSON,
        ),
    ),
    Command(
        "lora convert",
        "lora_convert",
        "write a LoRA under the names that another program reads",
        "ltx2tui lora convert my.safetensors --to diffusers --out other.safetensors",
        (
            LORA,
            _argument("--to", choices=("official", "comfyui", "diffusers", "kohya"), required=True, help="official and comfyui are one"),
            _argument("--out", type=Path, metavar="FILE", required=True, help="the file to write"),
            _argument("--dtype", choices=("bf16", "fp16", "fp32"), help="precision of the numbers (default: as they are)"),
        ),
    ),
)
GROUPS = {
    "config": "look at config files",
    "cache": "look after the cache of encoded clips",
    "lora": "look at, check and convert LoRA files",
}


def parser() -> argparse.ArgumentParser:
    """The command line: every command with its help and an example."""
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="where runs/ and cache/ lie (default: $LTX2TUI_HOME, else the config's output_dir, else here)",
    )
    top = argparse.ArgumentParser(
        prog="ltx2tui",
        description="Train LoRAs for LTX-2, in the terminal. Without a command, the app opens.",
        epilog="example: ltx2tui demo",
        parents=[root],
    )
    top.add_argument("--version", action="store_true", help="print the version and leave")
    top.set_defaults(module="app")
    commands = top.add_subparsers(metavar="COMMAND", title="commands")
    groups = {}
    for name, text in GROUPS.items():
        group = commands.add_parser(name, help=text, description=text.capitalize() + ".", parents=[root])
        group.set_defaults(module=None, group=group)
        groups[name] = group.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        group_name, _, name = command.words.rpartition(" ")
        place = groups[group_name] if group_name else commands
        own = place.add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog=f"example: {command.example}",
            parents=[root],
        )
        for argument in command.arguments:
            own.add_argument(*argument.names, **argument.options)
        own.set_defaults(module=command.module, words=command.words)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    chosen = parser().parse_args(arguments)
    if chosen.version:
        from importlib.metadata import version

        sys.stdout.write(f"ltx2tui {version('ltx2tui')}\n")
        return 0
    if chosen.module is None:
        chosen.group.print_help()
        return 2
    home = os.environ.get("LTX2TUI_HOME")
    chosen.asked_root = getattr(chosen, "root", None) or (Path(home) if home else None)
    chosen.root = chosen.asked_root or Path()
    try:
        code: int = import_module(f"ltx2tui.commands.{chosen.module}").run(chosen)
    except Ltx2Error as error:
        sys.stderr.write(f"{error.text}\n" + (f"{error.fix}\n" if error.fix else ""))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `ltx2tui runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nor at the flush at exit
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
