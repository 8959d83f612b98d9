"""Licences as the front matter of a model card names them."""

import re

import yaml

_LISTED = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
pddl lgpl-lr unknown
"""
KNOWN = frozenset(_LISTED.split())
"""Identifiers of the Hugging Face Hub (https://huggingface.co/docs/hub/repositories-licenses)."""


_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def license_fields(given: str) -> dict[str, str]:
    """The fields of the front matter: an identifier of the Hub, or `other` with the name as given; empty is unknown."""
    if not given:
        return {"license": "unknown"}
    if given.lower() in KNOWN:
        return {"license": given.lower()}
    return {"license": "other", "license_name": given}


def card_license(card: str) -> str:
    """The licence in a card's front matter, as `export inspect` shows it."""
    found = _FRONT_MATTER.match(card)
    try:
        fields = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        fields = None
    if not isinstance(fields, dict):
        return "no front matter that can be read"
    return str(fields.get("license_name") or fields.get("license") or "unknown")
