"""What is known about the model that answers."""

from __future__ import annotations

from bidaf.export.ensemble import ensemble_card
from bidaf.export.model_card import describe_made
from bidaf.export.write import card_of
from bidaf.inference.ensemble import Ensemble, Loaded
from bidaf.inference.exported import ExportedModel
from bidaf.runs.layout import CHECKPOINTS
from bidaf.serve.schemas import ModelResponse, ServedWeights
from bidaf.serve.service import Service
from bidaf.version import __version__


def model_information(service: Service) -> ModelResponse:
    """The response of `/model`."""
    loaded = [predictor.loaded for predictor in service.predictors.values()]
    first = service.predictors[service.default].loaded
    return ModelResponse(
        model=model_name(service),
        step=first.step,
        variant=first.config.model.variant,
        weights={each.weights: _served(each) for each in loaded},
        default_weights=service.default,
        version=__version__,
        card=_card(first),
    )


def _card(loaded: Loaded) -> str:
    if isinstance(loaded, Ensemble):
        return ensemble_card(loaded.info) if loaded.info else loaded.description
    return card_of(loaded)


def _served(loaded: Loaded) -> ServedWeights:
    if isinstance(loaded, Ensemble):
        made = f"an ensemble of {len(loaded.members)} models ({loaded.rule} rule)"
        return ServedWeights(made=made, scores=loaded.info.scores if loaded.info else None)
    source = loaded.source
    scores = (source.info.scores if isinstance(source, ExportedModel) else source.scores) or {}
    return ServedWeights(made=describe_made(loaded.made), scores=scores.get(loaded.weights))


def model_name(service: Service) -> str:
    """The name of the folder that answers: not its path, which is nobody else's business."""
    origin = service.predictors[service.default].loaded.origin
    if isinstance(origin, str):
        return origin
    folder = origin.resolve()
    return folder.parents[1].name if folder.parent.name == CHECKPOINTS else folder.name
