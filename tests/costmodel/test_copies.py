import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import Source, load_profile

# Rows of the training breakdown of FlashCP (arXiv 2606.08476), CP 8, 32 heads, 128k, H100:
# documents a pack, and copies of Llama3 CP and Per-Doc in milliseconds. Documents from WLB-LLM's
# histogram (3,962 tokens on average) and the Pile's mean of 5.91 KiB at 4.3 bytes a token.
PAPER = {"WLB-LLM": (33.1, 13.1, 19.8), "Pile": (93.1, 13.3, 29.7)}
MOVED_BYTES = 2 * 131072 * 32 * 128 * 2 * 2


@pytest.mark.parametrize("trace", list(PAPER))
def test_shard_wise_copies_take_what_the_papers_breakdown_shows(trace: str) -> None:
    documents, llama3_ms, per_doc_ms = PAPER[trace]
    profile = load_profile("h100-sxm")
    llama3 = profile.copy_us(MOVED_BYTES, (16 + documents - 1) / 8, "per-shard")
    per_doc = profile.copy_us(MOVED_BYTES, 2 * documents, "per-shard")
    assert llama3.us / 1e3 == pytest.approx(llama3_ms, rel=0.06)
    assert per_doc.us / 1e3 == pytest.approx(per_doc_ms, rel=0.06)
    assert llama3.source == Source.REPORTED


@given(st.floats(0, 1e12), st.floats(0, 1e4))
def test_copying_in_place_never_takes_longer(moved_bytes: float, pieces: float) -> None:
    profile = load_profile("h100-sxm")
    in_place = profile.copy_us(moved_bytes, pieces, "in-place").us
    assert in_place <= profile.copy_us(moved_bytes, pieces, "per-shard").us


def test_a_copy_in_place_reads_and_writes_each_byte_at_the_memorys_rate() -> None:
    profile = load_profile("h100-sxm")
    assert profile.copy_us(3.35e9, 5, "in-place").us == pytest.approx(2 * 1e3 / 0.9)
