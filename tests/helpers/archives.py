"""Archives of runs as somebody might send them: opened, changed, and packed again with fitting hashes."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Files = dict[str, bytes]


def unpacked(archive: Path) -> Files:
    """Return the files of an archive by name, the manifest among them."""
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def packed(contents: Mapping[Any, bytes], out: Path) -> Path:
    """Pack files as they are, by names or `zipfile.ZipInfo`."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out


def changed(archive: Path, change: Callable[[Files, dict[str, Any]], None]) -> Path:
    """Return a copy whose files and manifest `change` has altered; the hashes then fit the files."""
    contents = unpacked(archive)
    manifest = json.loads(contents.pop("manifest.json"))
    change(contents, manifest)
    manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    out = archive.with_name(f"changed-{archive.name}")
    return packed({**contents, "manifest.json": json.dumps(manifest).encode()}, out)


def one(contents: Files, kind: str) -> str:
    """Name the first table of a kind."""
    return min(name for name in contents if name.startswith(f"{kind}/"))


def table(content: bytes) -> pa.Table:
    """Read a table."""
    return pq.read_table(io.BytesIO(content))


def parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a file."""
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
