"""What came of opening a checkpoint with the installed transformers, as a report."""

from collections.abc import Iterator, Sequence
from math import isinf

from internvl_bridge.errors import first_few
from internvl_bridge.in_memory.load_check_result import LoadCheck, LogitDifference, Prompted
from internvl_bridge.reporting.commands import typed_path, unbroken
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Facts, Part, number_text


def load_check_report(found: LoadCheck) -> Iterator[Part]:
    """The verdict, then what was seen."""
    part = f", of which the first {found.layers} layers were opened" if found.layers else ""
    verdict = "Loads" if found.loads else "Does not load as it should"
    yield f"{verdict}: {found.path} ({found.format} format{part}), by {found.opened_by}."
    if found.loads and not found.ok:
        yield _on_the_other(found)
    values = {
        "Error": found.error or "",
        "Model": f"{found.parameters:,} parameters, {human_size(found.bytes)}, {found.dtype}" if found.dtype else "",
        "Missing": _names(found.missing, "made up by transformers"),
        "Unexpected": _names(found.unexpected, "not loaded"),
        "Mismatched": _names(found.mismatched, "of another shape"),
        "As stored": _as_stored(found),
        "Processor": _processor_text(found),
        "Prompt": _prompt_text(found.prompted) if found.prompted else "",
        "Against": _difference_text(found.against) if found.against else (found.against_error or ""),
        "Imported": ", ".join(f"{name} {version}" for name, version in found.imported.items()),
        "Memory": f"{human_size(found.peak_bytes)} at most, for the whole process",
        "Took": f"{found.seconds:.1f} s",
    }
    unknown = set() if found.dtype else {"Missing", "Unexpected", "Mismatched"}  # it did not even open
    yield Facts({name: value for name, value in values.items() if value and name not in unknown})
    if found.on_meta:
        yield "Only names and shapes were compared (--meta): no weights were read, and nothing was computed."
    elif found.layers:
        yield "The numbers of a part of a model mean nothing but for a comparison with the same part of another one."
    if not found.loads:
        deep = " --deep" if found.prompted is not None and not found.prompted.finite else ""
        command = unbroken(f"internvl-bridge doctor {typed_path(found.path)}{deep}")
        yield f"What may be wrong, and what to do: {command}"


def _on_the_other(found: LoadCheck) -> str:
    """Why a checkpoint that loads is not what it was compared with."""
    if found.against is None:
        return "What it was compared with does not load."
    if found.against.agrees:
        return "But both processors make other inputs of the same prompt: compare their chat templates and image sizes."
    return "But it computes something else than what it was compared with, as a fine-tune does."


def _names(keys: Sequence[str], what: str) -> str:
    return f"{len(keys)}, {what}: {first_few(keys)}" if keys else "none"


def _as_stored(found: LoadCheck) -> str:
    if found.as_stored is None:
        return ""
    total = found.as_stored + len(found.changed)
    changed = f"; replaced: {first_few(found.changed)}" if found.changed else ""
    return f"{found.as_stored} of {total} parameters are those of the files{changed}"


def _processor_text(found: LoadCheck) -> str:
    if found.processor_error is None:
        return found.processor or ""
    return f"{found.processor or 'AutoProcessor'} fails. {found.processor_error}"


def _prompt_text(prompted: Prompted) -> str:
    finite = "all logits are finite" if prompted.finite else "NOT all logits are finite"
    token = "" if prompted.next_token is None else f"; likeliest next token {prompted.next_token!r}"
    return f"an image and a question, {prompted.tokens} tokens ({prompted.inputs}); {finite}{token}"


def _difference_text(found: LogitDifference) -> str:
    inputs = {True: "the same inputs", False: "OTHER inputs by its own processor", None: "the same inputs"}
    if found.largest == 0:
        return f"{found.path}: every logit is equal bit for bit; {inputs[found.same_inputs]}"
    if isinf(found.largest):
        return f"{found.path}: it has another vocabulary, so that logits cannot be compared"
    token = "the same" if found.same_next_token else "another"
    verdict = "no more than another order of sums explains" if found.agrees else "MORE than rounding explains"
    return (
        f"{found.path}: logits differ by at most {number_text(found.largest)}, {number_text(found.relative)} of the "
        f"largest: {verdict}; {token} likeliest next token; {inputs[found.same_inputs]}"
    )
