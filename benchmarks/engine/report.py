"""The table of a result, within 80 columns, and the progress lines before it."""

import sys


def progress(number, contender, result):
    speed = result.get("tokens_per_second") or result["decode_tokens_per_second"]
    name = f"{contender.tool} {contender.variant}"
    print(f"  round {number + 1}: {name}: {speed:,.1f} tokens/s", file=sys.stderr, flush=True)


def rows_of(result):
    return [row for group in result["groups"] for row in group["rows"]]


def is_good(result):
    """Whether everything ran and every perplexity agrees; a missing subcommand is no failure."""
    return not any("error" in row or "disagrees" in row for row in rows_of(result))


def megabytes(row):
    return f"{row['peak_memory_bytes'] / 1e6:,.0f}"


def ratio(rows, row, key):
    """Our figure over this row's; more than 1 means that ours is the faster. Weights rounded to
    f16 are compared with those rounded to f16, where we ran such."""
    ours = [r for r in rows if r["tool"] == "sparse"]
    like = [r for r in ours if r["variant"] == row["variant"]]
    ours = next(iter(like or ours), None)
    if row["tool"] == "sparse" or not ours or key not in ours:
        return ""
    return f"{ours[key] / row[key]:.2f}"


def outcome(row):
    """What stands in place of figures: None when there are some."""
    if "missing" in row:
        return f"n/a: {row['missing']}"
    if "error" in row:
        return f"failed: {row['error']}"
    return None


def name(row):
    batch = row["runs"][0].get("batch") if row["runs"] else None
    return f"{row['tool']} {row['variant']}" + (f", batch {batch}" if batch else "")


def perplexity_lines(group):
    yield (f"perplexity, {group['protocol']}, context {group['context']}: "
           f"{group['processed_tokens']:,} tokens, {group['scored_tokens']:,} scored")
    yield f"  {'':26}{'tokens/s':>10}{'ours/it':>9}{'perplexity':>13}{'off by':>10}{'peak MB':>9}"
    for row in group["rows"]:
        if said := outcome(row):
            yield f"  {name(row):26}{said}"
            continue
        yield (f"  {name(row):26}{row['tokens_per_second']:>10,.0f}"
               f"{ratio(group['rows'], row, 'tokens_per_second'):>9}"
               f"{row['perplexity']:>13.4f}{row['deviation']:>+10.4%}{megabytes(row):>9}")
        if "disagrees" in row:
            yield f"    DISAGREES: {row['disagrees']}"


def decode_lines(group):
    yield (f"decode, batch 1, greedy: {group['new_tokens']} tokens "
           f"behind a prompt of {group['prompt_tokens']}")
    yield f"  {'':26}{'tokens/s':>10}{'ours/it':>9}{'first token ms':>16}{'peak MB':>9}"
    for row in group["rows"]:
        if said := outcome(row):
            yield f"  {name(row):26}{said}"
            continue
        yield (f"  {name(row):26}{row['decode_tokens_per_second']:>10.1f}"
               f"{ratio(group['rows'], row, 'decode_tokens_per_second'):>9}"
               f"{row['time_to_first_token_ms']:>16.1f}{megabytes(row):>9}")


def table(result):
    """Everything about one model: medians over the rounds."""
    loads = [run[key] for row in rows_of(result) for run in row["runs"]
             for key in ("load_before", "load_after")]
    machine = result["machine"]
    lines = [
        f"{result['model']}: {result['weight_bytes'] / 1e6:.1f} MB of {result['dtype']} weights",
        f"{machine['cpu']}, {result['threads']} threads, {result['rounds']} rounds, "
        f"load average {min(loads):.1f} to {max(loads):.1f}" if loads else machine["cpu"],
    ]
    for group in result["groups"]:
        lines += ["", *(perplexity_lines if group["task"] == "perplexity" else decode_lines)(group)]
    return "\n".join(lines) + "\n"
