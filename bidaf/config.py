"""The settings of a run: frozen, typed sections, one default and one sentence each.

The defaults are the paper's (Seo et al., ICLR 2017) wherever it says something; `docs/fidelity.md` lists, row by
row, where the released code does otherwise and which setting here chooses between them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bidaf.config_base import Count, Section
from bidaf.config_optimizer import AdadeltaConfig, ConstantSchedule, OptimizerConfig, ScheduleConfig

# A YAML list arrives as `list`; the frozen section keeps a tuple. A single name is a list of one.
Sources = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]

# Far beyond any use; a size with a zero too many ends in a message and not in all the memory.
MAX_SIZE, MAX_LAYERS, MAX_WORD_CHARS = 65_536, 64, 1_000


class DataConfig(Section):
    """What is read and how it becomes features. Every field but `prepared_dir` is part of the cache key."""

    train: Sources
    """Training questions: SQuAD JSON files, hub names (`rajpurkar/squad`) or local data set folders."""
    dev: Sources
    """Questions that are scored at every evaluation; never cut or filtered."""
    vectors: str | None = None
    """Pre-trained word vectors: a GloVe file (.txt, .gz, .zip) or a name (`glove.6B.100d`); null for none."""
    prepared_dir: str = Field("prepared", pattern=r"^[^\x00]+$")
    """Folder that holds prepared features, one subfolder per key."""
    language: str = Field("en", pattern=r"^[a-z]{2,3}$")
    """Language of the rules by which spaCy's blank pipeline splits words; a code such as en, de or zh."""
    unanswerable: bool = False
    """Keep questions that have no answer, as their source says. `model.no_answer` decides this too: leave it out."""
    second_split: bool = True
    """Split hyphens, dashes, slashes, tildes, quotes and degree signs off tokens, as the released code does."""
    split_questions: bool = True
    """Apply `second_split` to questions too (the released master branch forgets to)."""
    max_context_tokens: Count = 400
    """Training contexts are cut to this length, and questions answered beyond it are dropped."""
    max_question_tokens: Count = 30
    """Training questions that are longer are dropped."""
    min_word_count: int = Field(10, ge=0, le=10**9)
    """A word without a pre-trained vector gets a trained row when it occurs more often than this."""
    min_char_count: int = Field(50, ge=0, le=10**9)
    """A character gets an embedding row when it occurs more often than this."""
    max_word_chars: int = Field(16, ge=1, le=MAX_WORD_CHARS)
    """Number of characters read per word; longer words are cut."""

    @model_validator(mode="before")
    @classmethod
    def _one_source_is_a_list(cls, values: Any) -> Any:
        if isinstance(values, dict):
            single = {key: (values[key],) for key in ("train", "dev") if isinstance(values.get(key), str)}
            return {**values, **single}
        return values


class ModelConfig(Section):
    """The network's variant and sizes; `d` is `hidden_size`."""

    variant: Literal["paper", "released"] = "paper"
    """What the end-pointer LSTM reads: M (2d, the paper's equation) or [G; M; a; M*a] (14d, the released code)."""
    embeddings: Literal["both", "word", "char"] = "both"
    """What a token's vector is made of: word and characters, or one of them alone (the paper's ablations)."""
    attention: Literal["both", "context_to_query", "query_to_context", "dynamic"] = "both"
    """Directions of attention: both, one alone, or attention inside the modeling LSTM (the paper's ablations)."""
    hidden_size: int = Field(100, ge=1, le=MAX_SIZE)
    """Units d of each LSTM direction."""
    word_size: int = Field(100, ge=1, le=MAX_SIZE)
    """Width of the trained word rows when there are no pre-trained vectors (else the vectors' own width)."""
    char_embedding_size: int = Field(8, ge=1, le=MAX_SIZE)
    """Width of a character's embedding (released code; the paper does not say)."""
    char_channels: int = Field(100, ge=1, le=MAX_SIZE)
    """Filters of the character CNN."""
    char_width: int = Field(5, ge=1, le=MAX_WORD_CHARS)
    """Characters a filter spans."""
    highway_layers: int = Field(2, ge=0, le=MAX_LAYERS)
    """Highway layers over the concatenated word and character vectors."""
    projection_size: int | None = Field(None, ge=1, le=MAX_SIZE)
    """Project the concatenation to this width before the highway (the paper's text says d); null keeps it whole."""
    modeling_layers: int = Field(2, ge=1, le=MAX_LAYERS)
    """BiLSTM layers that turn G into M."""
    dropout: float = Field(0.2, ge=0.0, le=0.95)
    """Share of inputs dropped at the character CNN, every LSTM and the output scores."""
    context_dropout: bool = True
    """Drop inputs of the context's phrase LSTM too (the released code does so for the question only)."""
    share_phrase_lstm: bool = True
    """One phrase LSTM for context and question (released dev branch: two)."""
    no_answer: bool = False
    """Let a trained score for "no answer" compete with the spans (SQuAD 2.0); else such questions are left out."""
    score_bias: bool = True
    """A bias in the similarity and in the output scores: in the released code, and without effect in a softmax."""


class SnapshotsConfig(Section):
    """Copies of the shadow kept while training, from which other averages are synthesised afterwards."""

    every: Count = 50
    """Steps between two snapshots."""
    density: Count = 8
    """Snapshots kept per age group: more give smaller errors and take more space (about 6 more files per unit)."""


class EmaConfig(Section):
    """The moving average of the weights. The paper: decay 0.999, no warm-up."""

    enabled: bool = True
    """Keep a shadow of every trained weight. The raw weights are the same with and without it."""
    decay: float | None = Field(None, ge=0.0, lt=1.0)
    """Share of the shadow kept at each step; 0.999 when neither this nor `half_life` is given."""
    half_life: float | None = Field(None, gt=0.0, le=1e9)
    """Steps after which a weight's share in the shadow has halved; an alternative to `decay`."""
    warmup: Literal["none", "ramp", "power"] = "none"
    """Start with a smaller decay: `ramp` min(decay, (1+n)/(10+n)), `power` min(decay, 1-(1+n)^(-2/3))."""
    snapshots: SnapshotsConfig | None = SnapshotsConfig()
    """Copies of the shadow kept while training; null for none."""

    @model_validator(mode="before")
    @classmethod
    def _without_an_average_there_are_no_snapshots(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("enabled") is False:
            return {"snapshots": None, **values}
        return values

    @model_validator(mode="after")
    def _settings_agree(self) -> EmaConfig:
        if self.decay is not None and self.half_life is not None:
            raise ValueError("give `decay` or `half_life`, not both")
        if self.snapshots and not self.enabled:
            raise ValueError("`snapshots` are copies of the average, which `enabled: false` switches off; remove one")
        return self


class TrainingConfig(Section):
    """The loop: how long, in what order, by which optimizer. One step is one optimizer step."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Decides the initial weights, the order of questions and the dropout masks."""
    epochs: Count = 12
    """Passes over the training questions."""
    max_steps: Count | None = None
    """Maximum number of steps, whatever `epochs` says (the released code: 20,000); null for no such limit."""
    batch_size: int = Field(60, ge=1, le=MAX_SIZE)
    """Questions in a step's batch."""
    accumulate: Count = 1
    """Micro-batches that each batch runs as, one after the other, to save memory; a step sees their mean gradient."""
    batching: Literal["plain", "bucketed"] = "plain"
    """`bucketed` puts contexts of similar length together, which wastes less on padding."""
    reshuffle: bool = True
    """A new order every epoch; false repeats the first one, as the released code does."""
    optimizer: OptimizerConfig = AdadeltaConfig()
    """`name: adadelta`, `adam` or `adamw`, with its constants."""
    schedule: ScheduleConfig = ConstantSchedule()
    """Course of the learning rate: `name: constant`, `linear` or `cosine`. A resumed run keeps it."""
    clip_norm: float | None = Field(None, gt=0.0, le=1e9)
    """Scale gradients down to this global norm; null for no clipping."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """When loss or gradients are NaN or infinite: end the run, or skip that step."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Arithmetic of the matrix products; softmax, loss, optimizer and shadow are fp32 always."""
    log_every: Count = 50
    """Steps between two lines of training metrics."""
    save_every: Count | None = None
    """Steps between checkpoints in addition to those at each evaluation; null for none."""
    keep_last: Count = 3
    """Newest checkpoints that are kept, besides the best ones."""
    keep_best: Count = 1
    """Checkpoints that are kept for their dev F1 (`evaluation.rank_by`)."""
    deterministic: bool = False
    """Choose algorithms that give the same numbers every time, and leave time and memory out of metrics.jsonl."""
    tensorboard: bool = False
    """Write TensorBoard's event files to RUN/tensorboard; needs `pip install 'bidaf[tensorboard]'`."""

    @model_validator(mode="before")
    @classmethod
    def _a_section_without_a_name_is_the_default_one(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        names = {"optimizer": AdadeltaConfig().name, "schedule": ConstantSchedule().name}
        unnamed = {key for key in names if isinstance(values.get(key), dict) and "name" not in values[key]}
        return {**values, **{key: {"name": names[key], **values[key]} for key in unnamed}}

    def total_steps(self, per_epoch: int) -> int:
        """Steps of the whole run: `epochs`, unless `max_steps` ends it before."""
        return min(self.epochs * per_epoch, self.max_steps or self.epochs * per_epoch)


class MapConfig(Section):
    """The map: at evaluations, averages of several half-lives are scored on some dev questions."""

    questions: int = Field(1_000, ge=1)
    """Dev questions that each average is scored on, drawn evenly over the articles."""


class EvaluationConfig(Section):
    """When and how the dev questions are scored."""

    every_steps: Count | None = None
    """Steps between two evaluations; null for one at the end of every epoch. The last step is always scored."""
    max_answer_tokens: Count | None = None
    """Longest answer span considered; null for any (the paper)."""
    batch_tokens: Count | None = None
    """Padded context tokens in one evaluation batch; null for 60,000 on a CUDA device and 4,000 on others."""
    rank_by: Literal["raw", "ema"] = "ema"
    """The weight set whose dev F1 ranks checkpoints and decides `patience`; in a run without a shadow, the raw one."""
    patience: Count | None = None
    """Stop after this number of evaluations without a better F1; null for never."""
    averages: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Other averages to score at every evaluation and keep in its checkpoint, as in `half-life:2000`, `tail:25%`."""
    map: MapConfig | None = MapConfig()
    """Draw the map, in at most 5 % of the run's time; null for none. It needs `ema.snapshots`."""

    @field_validator("averages")
    @classmethod
    def _names_of_averages(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            return names
        from bidaf.ema.synthesis import Target

        targets = [Target.parse(name) for name in names]
        if any(target.kind in ("raw", "ema") for target in targets):
            raise ValueError("raw and ema are scored in any case; name other averages")
        if len(spelt := tuple(dict.fromkeys(map(str, targets)))) < len(names):
            raise ValueError("an average is named twice")
        return spelt


class Config(Section):
    """Everything that decides a run."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    ema: EmaConfig = EmaConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _data_follows_the_model(cls, values: Any) -> Any:
        data, model = (values.get(name) for name in ("data", "model")) if isinstance(values, dict) else (None, None)
        if isinstance(data, dict) and isinstance(model, dict) and model.get("no_answer") is True:
            return {**values, "data": {"unanswerable": True, **data}}
        return values

    @model_validator(mode="after")
    def _settings_agree(self) -> Config:
        problems = []
        if self.data.unanswerable != self.model.no_answer:
            problems.append(
                f"data.unanswerable ({self.data.unanswerable}) must be as model.no_answer ({self.model.no_answer}); "
                "leave it out"
            )
        if self.data.max_word_chars < self.model.char_width:
            problems.append(
                f"data.max_word_chars ({self.data.max_word_chars}) must be at least "
                f"model.char_width ({self.model.char_width})"
            )
        if self.training.accumulate > self.training.batch_size:
            problems.append(
                f"training.accumulate ({self.training.accumulate}) can't be more than "
                f"training.batch_size ({self.training.batch_size})"
            )
        if self.evaluation.averages and not self.ema.snapshots:
            problems.append("evaluation.averages are made of ema.snapshots, which are switched off")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON write them."""
        return self.model_dump(mode="json")
