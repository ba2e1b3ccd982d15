"""From image files to a collection: what belongs together, and what is written of it."""

from raydom.ingestion.file import Refusal
from raydom.ingestion.run import IngestReport, ingest

__all__ = ["IngestReport", "Refusal", "ingest"]
