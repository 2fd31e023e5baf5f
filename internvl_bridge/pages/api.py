"""Save the report of a result: the library's function."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from internvl_bridge.convert.extraction import Extraction
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.errors import OptionError, shown
from internvl_bridge.pages.checksum_page import checksum_page
from internvl_bridge.pages.comparison_page import comparison_page
from internvl_bridge.pages.conversion_page import conversion_page, extraction_page
from internvl_bridge.pages.page import Page
from internvl_bridge.pages.saving import save
from internvl_bridge.verification.checksums import ChecksumReport
from internvl_bridge.verification.tensors import Comparison

if TYPE_CHECKING:
    from internvl_bridge.verification.adapters import AdapterComparison

Result: TypeAlias = "ConversionReport | Extraction | Comparison | AdapterComparison | ChecksumReport"
"""What there is a report of."""


def save_report(result: Result, path: str | Path, *, left: str | Path = "left", right: str | Path = "right") -> Path:
    """Save ``result`` to look at: as a page that needs nothing beside itself, or as a picture.

    Args:
        result: What a function of this package returned: a ConversionReport, an Extraction, a Comparison, an
            AdapterComparison or a ChecksumReport. A Comparison shows the differences of single elements if
            :func:`internvl_bridge.verify` was called with ``distributions=True``.
        path: The file to make. Its name ends with .html for a page, with .svg for the figures alone. A report that is
            there already is replaced.
        left: What the left side of a comparison is called.
        right: What the right side is called.

    Returns:
        The file that was made.

    Raises:
        OptionError: There is no report of such a result, or none in such a file.
        OutputError: The file cannot be made, or another file is there.

    Example:
        >>> import internvl_bridge
        >>> found = internvl_bridge.verify("InternVL3_5-8B", "my-finetune-HF", distributions=True)
        >>> page = internvl_bridge.save_report(found, "finetune.html", left="InternVL3_5-8B", right="my fine-tune")
        >>> page.name
        'finetune.html'
    """
    save(_page_of(result, str(left), str(right)), Path(path))
    return Path(path)


def _page_of(result: Result, left: str, right: str) -> Page:
    match result:
        case ConversionReport():
            return conversion_page(result)
        case Extraction():
            return extraction_page(result)
        case Comparison():
            return comparison_page(result, left, right)
        case ChecksumReport():
            return checksum_page(result)
    # It imports torch.
    from internvl_bridge.pages.adapter_comparison_page import adapter_comparison_page  # noqa: PLC0415
    from internvl_bridge.verification.adapters import AdapterComparison  # noqa: PLC0415

    if isinstance(result, AdapterComparison):
        return adapter_comparison_page(result, left, right)
    raise OptionError(
        f"There is no report of {shown(result)}.", "Pass what to_hf, verify, merge or a function like them returned."
    )
