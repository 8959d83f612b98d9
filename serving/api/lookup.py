"""The version that a request names, for all protocols."""

from serving.api.errors import invalid, to_api_error
from serving.bundle.model_version import parse_resource
from serving.models.loader import ServedModel
from serving.models.repository import ModelNotFound, ModelRepository


def find_model(repository: ModelRepository, resource: str) -> ServedModel:
    """The served version with a resource name; "" for the primary version of the only model.

    Raises:
        ApiError: if there is none, or several could be meant.
    """
    if resource:
        name, number = parse_model_name(resource)
    else:
        names, number = repository.names, None
        if len(names) > 1:
            choices = ", ".join(model.manifest.resource for model in repository.models)
            raise invalid("MODEL_AMBIGUOUS", f"several models are served; name one of {choices}", "model")
        if not names:
            raise to_api_error(ModelNotFound("no model is served now"), "model")
        name = names[0]
    try:
        return repository.find(name, number)
    except ModelNotFound as error:
        raise to_api_error(error, "model") from error


def parse_model_name(resource: str) -> tuple[str, int | None]:
    """Name and version of a request's model; raises ApiError if the resource name is malformed."""
    try:
        return parse_resource(resource)
    except ValueError as error:
        raise invalid("MODEL_NAME_INVALID", str(error), "model") from error
