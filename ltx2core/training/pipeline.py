"""The path of a run: scan, cache, train, sample, export. session.py owns the thread and what surrounds it; this loads torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.fingerprint import fingerprint
from ltx2core.config.load import save_config
from ltx2core.errors import RunError
from ltx2core.lora.read import read_lora
from ltx2core.lora.start import check_layers, check_rank, start_from
from ltx2core.models.components import check_transformer, load_transformer
from ltx2core.runs.events import LoraExported, Notice, PhaseStarted
from ltx2core.training.adapter import add_adapter, load_adapter, module_names, target_modules
from ltx2core.training.batches import DataOrder
from ltx2core.training.between import Milestones
from ltx2core.training.checkpoint import Identity
from ltx2core.training.data import Reader
from ltx2core.training.export import average_path, export_lora, training_metadata
from ltx2core.training.loop import Loop
from ltx2core.training.objective_settings import references
from ltx2core.training.optimizer import AdapterOptimizer
from ltx2core.training.prepare import prepare
from ltx2core.training.sample_reference import sample_reference
from ltx2core.training.settings import (
    adam_settings,
    adapter_settings,
    average_settings,
    export_settings,
    loop_settings,
    sample_settings,
    schedule_of,
    trigger_of,
)
from ltx2core.training.step import Model
from ltx2core.validation.held_out import keep_held_out, read_held_out, split_held_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from ltx2core.caching.passes import Cached, CachedClip
    from ltx2core.config.load import LoadedConfig
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.runs.control import Control
    from ltx2core.runs.events import Event
    from ltx2core.runs.folder import RunFolder
    from ltx2core.training.adapter import AdapterSettings
    from ltx2core.training.checkpoint import Saved
    from ltx2core.training.prepare import Prepared


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

    def run(self) -> Finished:
        """Go the whole path. Raises Ltx2Error for what a user can mend, Stopped when asked to before training began."""
        if (first := self.loaded.config.init_lora) and self.saved is None:
            check_rank(read_lora(Path(first)), self.loaded.config.lora_rank)
        prepared = prepare(self.loaded, root=self.root, emit=self.emit, should_stop=lambda: self.control.stop_requested)
        self._check(prepared)
        return self._train(prepared, prepared.cache())

    def _check(self, prepared: Prepared) -> None:
        """Refuse, before hours of caching, what could not be trained after them: weights that are not whole or have no room, layers that
        the model does not have, a LoRA to start from that does not fit."""
        config, audio, video = self.loaded.config, prepared.audio, prepared.video
        empty = check_transformer(prepared.checkpoint, dtype=prepared.dtype, device=prepared.device, video=video, audio=audio)
        layers = target_modules(empty, video=video, audio=audio, wanted=adapter_settings(config).targets)
        if config.init_lora and self.saved is None:
            weights = {layer: empty.get_submodule(layer).weight.shape for layer in layers}
            check_layers(read_lora(Path(config.init_lora)), {layer: (shape[0], shape[1]) for layer, shape in weights.items()})

    def _train(self, prepared: Prepared, cached: Cached) -> Finished:
        config, checkpoint, video, audio = self.loaded.config, prepared.checkpoint, prepared.video, prepared.audio
        device, dtype = prepared.device, prepared.dtype
        reader = Reader(prepared.store, cached, device)
        clips, held_out = self._split(cached)  # as before a resume: a dataset that grew gives no clip trained on to the measuring
        samples = sample_settings(config, video=video, audio=audio)
        beside = sample_reference(prepared.passes, [*held_out, *clips], samples) if config.ltx2_reference_conditioning_probability else None
        order = DataOrder(reader.entries(clips), batch_size=config.train_batch_size, seed=config.seed)
        total_steps = config.max_train_steps or -(-config.num_train_epochs * order.batches_per_epoch // config.gradient_accumulation_steps)
        transformer = load_transformer(checkpoint, dtype=dtype, device=device, video=video, audio=audio)
        model = Model(transformer=transformer, device=device, dtype=dtype)
        settings = adapter_settings(config)
        parameters = add_adapter(model.transformer, settings, video=video, audio=audio, seed=config.seed)
        if config.gradient_checkpointing:
            model.transformer.enable_gradient_checkpointing()
        optimizer = AdapterOptimizer(parameters, adam_settings(config), average=average_settings(config))
        layers = module_names(parameters)
        identity = Identity(
            base=checkpoint.fingerprint("transformer"),
            rank=settings.rank,
            alpha=settings.alpha,
            targets=fingerprint({"layers": " ".join(layers)}),
            seed=config.seed,
            data=fingerprint(
                {
                    "clips": " ".join(_trained_on(clip) for clip in clips),
                    "batches": f"{config.train_batch_size} {config.gradient_accumulation_steps}",
                }
            ),
        )
        start, init = self._load_checkpoint(parameters, optimizer, identity)
        if start == 0 and config.init_lora:
            init = self._start_from(Path(config.init_lora), parameters, optimizer, settings)
        identity = replace(identity, init=init)
        save_config(self.folder, self.loaded)
        if start >= total_steps and self.folder.lora.exists():
            text = f"All {start} steps are trained already, and the LoRA is written."
            self.emit(Notice(code="already_finished", text=text, fix="Raise max_train_steps to train on."))
            return Finished(step=start, stopped=False)
        if config.eval_steps_interval and config.eval_split:
            keep_held_out(self.folder, held_out)
        self._describe(model, parameters, layers, trained="video only" if not audio else "video and audio" if video else "sound only")
        between = Milestones(
            model=model,
            checkpoint=checkpoint,
            reader=reader,
            held_out=held_out,
            parameters=parameters,
            optimizer=optimizer,
            identity=identity,
            folder=self.folder,
            control=self.control,
            emit=self.emit,
            prompt=prepared.prompt if beside is None else config.validation_prompt or beside.caption,
            negative_prompt=prepared.negative_prompt,
            schedule=schedule_of(config, total_steps),
            sample_settings=samples,
            audio_weight=config.audio_loss_weight,
            reference=None if beside is None else beside.reference,
        )
        between.before_training(start)
        loop = Loop(
            model=model,
            optimizer=optimizer,
            reader=reader,
            clips=clips,
            order=order,
            settings=loop_settings(config, total_steps),
            emit=self.emit,
        )
        step, stopped = loop.run(start=start, control=self.control, between=between)
        between.after_training(step)
        if step > 0:
            self._export(parameters, optimizer, checkpoint, layers, clips, step=step, init=init)
        return Finished(step=step, stopped=stopped)

    def _split(self, cached: Cached) -> tuple[list[CachedClip], list[CachedClip]]:
        config = self.loaded.config
        share = config.eval_split if config.eval_steps_interval else 0.0
        before = read_held_out(self.folder) if self.resume and share else None
        clips, held_out = split_held_out(cached.clips, share=share, before=before)
        if before and (gone := before - {clip.source for clip in held_out}):
            text = f"{len(gone)} of {len(before)} clips that the held-out loss was measured on are gone or changed: the curve has a step."
            fix = "Put them back, or train under another name for a fair comparison."
            self.emit(Notice(code="held_out_changed", level="warning", text=text, fix=fix))
        if held_out:
            names = ", ".join(clip.sample.clip.path.name for clip in held_out)
            self.emit(Notice(code="held_out", text=f"Kept out of training, to measure the held-out loss on: {names}."))
        elif share:
            self.emit(
                Notice(code="no_held_out", text=f"{len(clips)} clips are too few to hold one out, so the held-out loss is not measured.")
            )
        return clips, held_out

    def _load_checkpoint(self, parameters: Mapping[str, nn.Parameter], optimizer: AdapterOptimizer, identity: Identity) -> tuple[int, str]:
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
            "targets": "other layers",
            "seed": "another seed",
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
            optimizer.load_state(state)
        except (KeyError, ValueError) as error:
            raise RunError(f"{saved.folder} does not fit this run: {error}.", fix="Train under another name with --run.") from error
        return saved.step, saved.identity.init

    def _start_from(
        self, path: Path, parameters: Mapping[str, nn.Parameter], optimizer: AdapterOptimizer, settings: AdapterSettings
    ) -> str:
        """The name and digest of the LoRA file that the adapter is given the values of."""
        lora = read_lora(path)
        fresh = start_from(parameters, lora, scale=settings.alpha / settings.rank)
        optimizer.restart_average()
        text = f"Starts from {path.name}: rank {lora.rank}, {len(lora.pairs)} layers"
        self.emit(Notice(code="init_lora", text=text + (f"; {fresh} more layers start from nothing." if fresh else ".")))
        return lora.fingerprint

    def _describe(self, model: Model, parameters: Mapping[str, nn.Parameter], layers: list[str], *, trained: str) -> None:
        count = sum(parameter.numel() for parameter in parameters.values())
        checkpointing = "recomputed" if self.loaded.config.gradient_checkpointing else "kept"
        name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else f"the CPU ({torch.get_num_threads()} threads)"
        dtype = str(model.dtype).removeprefix("torch.")
        software = f"PyTorch {torch.__version__}'s attention, fused AdamW, activations {checkpointing}, not compiled"
        text = f"Trains on {name} in {dtype}: {software}."
        self.emit(Notice(code="engine", text=text))
        self.emit(Notice(code="adapter", text=f"A LoRA of {count:,} float32 parameters on {len(layers)} layers, {trained}."))

    def _export(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: AdapterOptimizer,
        checkpoint: Checkpoint,
        layers: list[str],
        clips: list[CachedClip],
        *,
        step: int,
        init: str,
    ) -> None:
        config, averaged = self.loaded.config, optimizer.averaged()
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
            export_lora(path, adapter, export_settings(config), metadata=header)
            self.emit(LoraExported(step=step, path=path.relative_to(self.folder.path).as_posix()))


def _trained_on(clip: CachedClip) -> str:
    """What a clip gives to training, by the names of its entries."""
    linked = "".join(f" {name}" for name in (clip.mask, clip.reference) if name)
    return f"{clip.video} {clip.audio} {' '.join(clip.captions)} {clip.sample.repeats}{linked}"
