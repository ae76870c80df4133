"""The path of a run: scan, cache, train, sample, export. session.py owns the thread and what surrounds it; this loads torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.caching.fingerprint import fingerprint
from ltx2core.config.adjust import has_distilled_weights
from ltx2core.config.load import save_config
from ltx2core.distributed.launch import others_of
from ltx2core.errors import ConfigError, RunError
from ltx2core.lora.read import read_lora
from ltx2core.lora.start import check_layers, check_rank, start_from
from ltx2core.lora.verify import refuse_misfit
from ltx2core.models.named_file import find_named_file
from ltx2core.models.upsampler import check_upsampler
from ltx2core.planning.before_run import hardware_here, largest_batch, predicted_for
from ltx2core.planning.history import predicted_events
from ltx2core.runs.events import LoraExported, Notice, PhaseStarted
from ltx2core.runs.files import write_json
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import read_journal
from ltx2core.training.adapter import check_patterns, load_adapter, module_names, target_modules
from ltx2core.training.agreement import same_devices, same_start
from ltx2core.training.between import Milestones
from ltx2core.training.checkpoint import Identity, open_step
from ltx2core.training.course import course_of, trainee_of
from ltx2core.training.export import average_path, export_lora, training_metadata
from ltx2core.training.follower import Task
from ltx2core.training.head_optimizer import load_state
from ltx2core.training.loop import END, Loop
from ltx2core.training.objective_settings import references
from ltx2core.training.prepare import prepare
from ltx2core.training.sample_reference import sample_reference
from ltx2core.training.settings import (
    adapter_settings,
    export_settings,
    find_upsampler,
    loop_settings,
    sample_settings,
    schedule_of,
    train_settings,
    trigger_of,
)
from ltx2core.training.trainee import check_trainee
from ltx2core.validation.curve import Curve, curve_of
from ltx2core.validation.examine import Examiner
from ltx2core.validation.guidance import stg_blocks
from ltx2core.validation.held_out import keep_held_out
from ltx2core.validation.inputs import beside, make_takes, sizes_of
from ltx2core.validation.shots import beside_adapters, find_adapters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from ltx2core.caching.passes import Cached, CachedClip
    from ltx2core.config.load import LoadedConfig
    from ltx2core.data.clip import Sample
    from ltx2core.distributed.launch import Others
    from ltx2core.hardware.machine import Machine
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.runs.control import Control
    from ltx2core.runs.events import Event
    from ltx2core.training.adapter import AdapterSettings
    from ltx2core.training.checkpoint import Saved
    from ltx2core.training.optimizer import Optimizer
    from ltx2core.training.prepare import Prepared
    from ltx2core.training.trainee import Trainee
    from ltx2core.validation.inputs import Take
    from ltx2core.validation.media import SampleSettings
    from ltx2core.validation.shots import Shot


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a run ended: steps done, and whether it was stopped before its last one."""

    step: int
    stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A run's settings and surroundings. `run` does all of it."""

    loaded: LoadedConfig
    root: Path
    folder: RunFolder
    control: Control
    emit: Callable[[Event], None]
    resume: bool
    saved: Saved | None = None  # what a resumed run goes on from
    damaged: Sequence[Path] = ()  # newer checkpoints, which are passed over
    machine: Machine | None = None  # as it was before this process took anything of it; None: nothing is predicted

    def run(self) -> Finished:
        """Go the whole path. Raises Ltx2Error for what a user can mend, Stopped when asked to before training began."""
        if (first := self.loaded.config.init_lora) and self.saved is None:
            settings = adapter_settings(self.loaded.config)
            check_rank(read_lora(Path(first)), lambda layer: settings.shape_of(layer).rank)
        prepared = prepare(self.loaded, root=self.root, emit=self.emit, should_stop=lambda: self.control.stop_requested)
        self._predict(prepared.samples)
        self._check(prepared)
        shots, upsampler = self._with_adapters(prepared), self._upsampler(prepared)
        size, log = self.loaded.config.num_processes, self.folder.output_log
        with others_of(size, emit=self.emit, log=log, should_stop=lambda: self.control.stop_requested) as others:
            cached = prepared.cache()
            write_json(self.folder.cached, sorted(cached.names()))
            if size > 1:
                save_config(RunFolder(others.folder), self.loaded)
                others.send(self._task(others.folder))
            return replace(self, emit=others.emit)._train(prepared, cached, shots, upsampler, others)

    def _task(self, folder: Path) -> dict[str, object]:
        """What the other ranks are told: where all that they need lies, and what they go on from."""
        return Task(
            config=str((folder / "config.json").absolute()),
            root=str(self.root.absolute()),
            run=self.folder.name,
            resume=self.resume,
            step=None if self.saved is None else self.saved.step,
        ).as_json()

    def _predict(self, samples: Sequence[Sample]) -> None:
        """Tell what this run will need and take, by its largest clip: `ltx2tui plan --history` compares it with what it does take."""
        trained = [sample for sample in samples if not sample.treatment.measured]
        if self.machine is None or (largest := largest_batch(trained, self.loaded.config)) is None:
            return
        hardware = hardware_here(self.machine, self.root)
        prediction = predicted_for(hardware, self.loaded, largest=largest, clips=len(trained))
        if hardware is not None and prediction is not None:
            for event in predicted_events(prediction, hardware):
                self.emit(event)

    def _check(self, prepared: Prepared) -> None:
        """Refuse, before hours of caching, what could not be trained after them: weights that are not whole or have no room, layers that
        the model does not have, a LoRA to start from that does not fit."""
        config, audio, video = self.loaded.config, prepared.audio, prepared.video
        largest = largest_batch((sample for sample in prepared.samples if not sample.treatment.measured), config)
        settings = train_settings(
            config,
            tokens=1 if largest is None else largest.clip_tokens,
            batch_size=None if largest is None else largest.count,
            features=prepared.passes.features,
        )
        empty = check_trainee(prepared.checkpoint, settings, video=video, audio=audio, device=prepared.device, dtype=prepared.dtype)
        layers = target_modules(empty, video=video, audio=audio, wanted=adapter_settings(config).targets)
        check_patterns(adapter_settings(config), layers)
        try:
            stg_blocks(empty, config.ltx2_validation_stg_blocks)
        except ValueError as error:
            raise ConfigError([f"ltx2_validation_stg_blocks: {error}."], fix="Leave it out for the official choice.") from error
        if config.init_lora and self.saved is None:
            weights = {layer: empty.get_submodule(layer).weight.shape for layer in layers}
            check_layers(read_lora(Path(config.init_lora)), {layer: (shape[0], shape[1]) for layer, shape in weights.items()})

    def _with_adapters(self, prepared: Prepared) -> tuple[Shot, ...]:
        """The samples to make, with the further LoRAs that they are made with. Raises CheckpointError for one of another model."""
        config = self.loaded.config
        if config.validation_disable:
            return prepared.shots

        def find(name: str) -> Path:
            return find_named_file(name, base=self.loaded.base, key="validation_adapter_path", tell=self._tell_download)

        sets = find_adapters(config, find=find)
        for path in dict.fromkeys(file.path for one in sets for file in one.files):
            refuse_misfit(path, prepared.checkpoint)
        return beside_adapters(prepared.shots, sets)

    def _upsampler(self, prepared: Prepared) -> Path | None:
        """The file that samples are upsampled with, if they are. Raises CheckpointError for one of another model."""
        config = self.loaded.config
        if config.validation_disable or not prepared.video or (found := find_upsampler(self.loaded, tell=self._tell_download)) is None:
            return None
        check_upsampler(found, prepared.checkpoint)
        if not has_distilled_weights(config) and not config.sample_adapters:
            text = "Samples are upsampled and drawn on in three steps that are made for distilled weights; without those they stay rough."
            fix = "Name a distilled LoRA in validation_adapter_config, with target_stage stage2."
            self.emit(Notice(code="not_distilled", level="warning", text=text, fix=fix))
        return found

    def _tell_download(self, text: str) -> None:
        self.emit(Notice(code="model_download", text=text))

    def _train(self, prepared: Prepared, cached: Cached, shots: Sequence[Shot], upsampler: Path | None, others: Others) -> Finished:
        config, checkpoint, video, audio = self.loaded.config, prepared.checkpoint, prepared.video, prepared.audio
        course = course_of(config, prepared, cached, folder=self.folder, resume=self.resume, emit=self.emit)
        clips, held_out, total_steps = course.clips, course.held_out, course.total_steps
        samples = replace(sample_settings(config, video=video, audio=audio), upsampler=upsampler)
        takes = self._takes(prepared, shots, [*held_out, *clips], samples)
        ranks = others.join(prepared.device)
        devices = same_devices(ranks, prepared.device)
        self.emit(PhaseStarted(phase="load", total=0, unit="tensors"))
        trainee = trainee_of(config, prepared, course, root=self.root, emit=self.emit, ranks=ranks)
        settings, model, parameters, optimizer = adapter_settings(config), trainee.model, trainee.parameters, trainee.optimizer
        layers = module_names(parameters)
        identity = Identity(
            base=checkpoint.fingerprint("transformer"),
            rank=settings.rank,
            alpha=settings.alpha,
            kind=settings.kind,
            targets=fingerprint({"layers": " ".join(layers)}),
            seed=config.seed,
            optimizer=trainee.rule,
            data=course.data,
        )
        start, init = self._load_checkpoint(parameters, optimizer, identity)
        if start == 0 and config.init_lora:
            init = self._start_from(Path(config.init_lora), parameters, optimizer, settings)
        trainee.refresh()
        same_start(ranks, trainee.shared, course=f"{course.data} {start} of {total_steps}")
        identity = replace(identity, init=init)
        save_config(self.folder, self.loaded)
        if start >= total_steps and self.folder.lora.exists():
            text = f"All {start} steps are trained already, and the LoRA is written."
            self.emit(Notice(code="already_finished", text=text, fix="Raise max_train_steps to train on."))
            return Finished(step=start, stopped=False)
        curve = curve_of((entry.event for entry in read_journal(self.folder.journal)), until=start) if start else Curve()
        if curve.flat_for(config.eval_patience) and self.folder.lora.exists():
            text = f"The held-out loss ended this run after {start} steps already, and the LoRA is written."
            self.emit(Notice(code="already_finished", text=text, fix="A larger eval_patience, or 0, trains on."))
            return Finished(step=start, stopped=False)
        if config.eval_patience and not (config.eval_steps_interval and held_out):
            text = "eval_patience has no effect, since no held-out loss is measured: all steps are trained."
            fix = "Set eval_steps_interval, and eval_split or an eval dataset."
            self.emit(Notice(code="no_effect", level="warning", text=text, fix=fix))
        if config.eval_steps_interval and (config.eval_split or held_out):
            keep_held_out(self.folder, held_out)
        self._describe(trainee, layers, trained="video only" if not audio else "video and audio" if video else "sound only")
        self._tell_ranks(devices)
        between = Milestones(
            model=model,
            engine=trainee.engine,
            checkpoint=checkpoint,
            reader=course.reader,
            held_out=held_out,
            parameters=parameters,
            optimizer=optimizer,
            identity=identity,
            folder=self.folder,
            control=self.control,
            emit=self.emit,
            takes=takes,
            examiner=Examiner(store=prepared.store, clips=clips, folder=self.folder, fps=config.frame_rate),
            negative_prompt=prepared.negative_prompt,
            schedule=schedule_of(config, total_steps),
            audio_weight=config.audio_loss_weight,
            ranks=ranks,
            curve=curve,
        )
        between.before_training(start)
        loop = Loop(
            model=model,
            engine=trainee.engine,
            optimizer=optimizer,
            reader=course.reader,
            clips=clips,
            order=course.order,
            settings=loop_settings(config, total_steps),
            meter=trainee.meter,
            emit=self.emit,
            parameters=parameters,
            ranks=ranks,
        )
        step, stopped = (start, False) if between.enough() else loop.run(start=start, control=self.control, between=between)
        between.after_training(step)
        ranks.told(END)
        if config.lora_checkpoint == "best":
            step = self._take_best(between.curve, trainee, last=step)
        if step > 0:
            self._export(trainee, checkpoint, layers, clips, step=step, init=init)
        return Finished(step=step, stopped=stopped)

    def _takes(self, prepared: Prepared, shots: Sequence[Shot], clips: Sequence[CachedClip], settings: SampleSettings) -> tuple[Take, ...]:
        """The samples to make, what they are given being encoded now: before the transformer is loaded, and not beside it."""
        config = self.loaded.config
        takes = make_takes(prepared.checkpoint, shots, settings, device=prepared.device, dtype=prepared.dtype)
        named = next((reference.path for reference in config.validation_ltx2_video_conditioning), None)
        if named is None and not config.ltx2_reference_conditioning_probability:
            return takes
        found = sample_reference(prepared.passes, clips, settings, sizes=sizes_of(shots, settings), named=named)
        if found is None:
            return takes
        named_prompt = config.validation_prompt or config.user_prompt_library or config.validation_prompt_library
        if found.caption is not None and not named_prompt and not config.validation_using_datasets:
            takes = tuple(replace(take, shot=replace(take.shot, prompt=found.caption)) for take in takes)
        return beside(takes, found.references)

    def _load_checkpoint(self, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, identity: Identity) -> tuple[int, str]:
        """How many steps are done, and which LoRA they began with; the adapter and optimizer are as they were then."""
        if not self.resume:
            return 0, ""
        saved = self.saved
        for path in self.damaged:
            self.emit(
                Notice(code="checkpoint_damaged", level="warning", text=f"{path.name} is damaged and passed over.", fix="Check the disk.")
            )
        if saved is None:
            self.emit(Notice(code="nothing_to_resume", text="This run has no checkpoint yet: it starts with step 1."))
            return 0, ""
        words = {
            "base": "another model",
            "rank": "another rank",
            "alpha": "another alpha",
            "kind": "another kind of LoRA, or other ranks of layers",
            "targets": "other layers",
            "seed": "another seed",
            "optimizer": "another optimizer",
        }
        changed = [name for name in words if getattr(saved.identity, name) != getattr(identity, name)]
        if changed:
            raise RunError(
                f"{saved.folder.name} of run {self.folder.name!r} was trained with {', '.join(words[name] for name in changed)}.",
                fix="Put the old values back to resume, or train under another name with --run.",
            )
        if saved.identity.data not in ("", identity.data):
            text = (
                f"Clips, captions or batch size are not those that {saved.folder.name} was trained with; the run goes on with the new ones."
            )
            self.emit(Notice(code="data_changed", level="warning", text=text, fix="For a fair comparison train under another name."))
        adapter, state = saved.tensors()
        try:
            load_adapter(parameters, adapter)
            load_state(optimizer, state)
        except (KeyError, ValueError) as error:
            raise RunError(f"{saved.folder} does not fit this run: {error}.", fix="Train under another name with --run.") from error
        return saved.step, saved.identity.init

    def _start_from(self, path: Path, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, settings: AdapterSettings) -> str:
        """The name and digest of the LoRA file that the adapter is given the values of."""
        lora = read_lora(path)
        fresh = start_from(parameters, lora, scale=lambda layer: settings.shape_of(layer).scale)
        optimizer.restart_average()
        text = f"Starts from {path.name}: rank {lora.rank}, {len(lora.pairs)} layers"
        self.emit(Notice(code="init_lora", text=text + (f"; {fresh} more layers start from nothing." if fresh else ".")))
        return lora.fingerprint

    def _take_best(self, curve: Curve, trainee: Trainee, *, last: int) -> int:
        """Give the adapter the values of the checkpoint with the lowest held-out loss: its step, or `last` where there is none."""
        best = curve.best
        if best is None:
            text = "lora_checkpoint has no effect, since no held-out loss was measured: the LoRA is that of the last step."
            fix = "Set eval_steps_interval, and eval_split or an eval dataset."
            self.emit(Notice(code="no_effect", level="warning", text=text, fix=fix))
            return last
        there = (point for point in curve.from_best if point.step == last or open_step(self.folder.checkpoints, point.step) is not None)
        taken = next(there, None)
        if taken != best:  # measured by a session that was not asked for the best, or damaged since
            text = f"Step {best.step} has the lowest held-out loss, {best.loss:.4f}, but no whole checkpoint."
            self.emit(Notice(code="best_is_gone", level="warning", text=text))
        if taken is None:
            return last
        saved = open_step(self.folder.checkpoints, taken.step) if taken.step != last else None
        if saved is not None:
            adapter, state = saved.tensors()
            load_adapter(trainee.parameters, adapter)
            load_state(trainee.optimizer, state)
            trainee.refresh()
        self.emit(Notice(code="best_checkpoint", text=f"The LoRA is that of step {taken.step}, whose held-out loss is {taken.loss:.4f}."))
        return taken.step

    def _describe(self, trainee: Trainee, layers: list[str], *, trained: str) -> None:
        count = sum(parameter.numel() for parameter in trainee.parameters.values())
        name = trainee.model.device_name
        dtype = str(trainee.model.dtype).removeprefix("torch.")
        self.emit(Notice(code="engine", text=f"Trains on {name} in {dtype}: {trainee.software}."))
        self.emit(trainee.chosen)
        kind = "DoRA" if self.loaded.config.use_dora else "LoKr" if self.loaded.config.lora_type == "lycoris" else "LoRA"
        self.emit(Notice(code="adapter", text=f"A {kind} of {count:,} float32 parameters on {len(layers)} layers, {trained}."))

    def _tell_ranks(self, devices: Sequence[str]) -> None:
        """That several devices train together, and what an update is."""
        if len(devices) == 1:
            return
        config, kinds = self.loaded.config, list(dict.fromkeys(devices))
        each = config.gradient_accumulation_steps
        text = f"{len(devices)} ranks train together: an update learns from {each} batch{'es' if each > 1 else ''} on each of them."
        self.emit(Notice(code="ranks", text=text))
        if len(kinds) > 1:
            text = f"The ranks' GPUs differ: {', '.join(kinds)}. The slowest sets the pace, and the smallest how weights are held."
            fix = "CUDA_VISIBLE_DEVICES chooses those of one name."
            self.emit(Notice(code="ranks_differ", level="warning", text=text, fix=fix))

    def _export(
        self,
        trainee: Trainee,
        checkpoint: Checkpoint,
        layers: list[str],
        clips: list[CachedClip],
        *,
        step: int,
        init: str,
    ) -> None:
        config, optimizer, parameters = self.loaded.config, trainee.optimizer, trainee.parameters
        averaged = optimizer.averaged()
        metadata = training_metadata(
            checkpoint=checkpoint,
            layers=layers,
            clips=clips,
            trigger=trigger_of(self.loaded),
            steps=step,
            seed=config.seed,
            init=init,
            references=references(config) if any(clip.reference for clip in clips) else None,
        )
        files: dict[Path, tuple[Mapping[str, Tensor], dict[str, str]]] = {self.folder.lora: (parameters, metadata)}
        if averaged is not None:  # written first: the last file that is told is the LoRA itself
            words = {"average": f"decay {config.ema_decay:g} every {config.ema_update_interval} steps"}
            files = {average_path(self.folder.lora): (averaged, metadata | words)} | files
        self.emit(PhaseStarted(phase="export", total=len(files), unit="files"))
        for path, (adapter, header) in files.items():
            with optimizer.at_rest():
                export_lora(path, adapter, export_settings(config), metadata=header, transformer=trainee.model.transformer)
            self.emit(LoraExported(step=step, path=path.relative_to(self.folder.path).as_posix()))
