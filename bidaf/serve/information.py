"""What is known about the model that answers."""

from __future__ import annotations

from bidaf.export.model_card import describe_made
from bidaf.export.write import card_of
from bidaf.inference.exported import ExportedModel
from bidaf.runs.layout import CHECKPOINTS
from bidaf.serve.schemas import ModelResponse, ServedWeights
from bidaf.serve.service import Service
from bidaf.version import __version__


def model_information(service: Service) -> ModelResponse:
    """The response of `/model`."""
    loaded = [predictor.loaded for predictor in service.predictors.values()]
    first = service.predictors[service.default].loaded
    source = first.source
    scores = (source.info.scores if isinstance(source, ExportedModel) else source.scores) or {}
    return ModelResponse(
        model=model_name(service),
        step=source.step,
        variant=first.config.model.variant,
        weights={
            each.weights: ServedWeights(made=describe_made(each.made), scores=scores.get(each.weights))
            for each in loaded
        },
        default_weights=service.default,
        version=__version__,
        card=card_of(first),
    )


def model_name(service: Service) -> str:
    """The name of the run's or export's folder: not its path, which is nobody else's business."""
    folder = service.predictors[service.default].loaded.origin.resolve()
    return folder.parents[1].name if folder.parent.name == CHECKPOINTS else folder.name
