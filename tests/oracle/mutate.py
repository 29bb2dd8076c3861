#!/usr/bin/env python3
"""Makes other, nastier data from a landing folder of the Cloud Provider Analytics contract.

    mutate.py LANDING OUT --seed S [--events N] [--zstd]

The same landing folder, seed and N give the same bytes (and the same file modification times). OUT
must be empty or not exist. With --zstd (needs the `zstd` program) half of the compressed files
are .zst instead of .gz. The result is a landing folder again, to be given to the engine and to the
oracle: whatever they make of it must be the same.

What it does, in short
  events   a sample of N, with date ranges thinned out and days without any; spread over another number
           of files (other names, sizes, date mixes, some .gz, BOM, CRLF, blank lines); odd services, regions,
           metrics, versions, numbers as strings, user ids, fields of wrong types; every quarantine reason;
           duplicates in other formatting and conflicts, in the same file and in others; an org whose
           costs are all the same (no standard deviation); files that must be ignored.
  batch    several versions of each source, dates in the names, out of order, with changed, repeated, new,
           dropped and reverted (A, B, A) rows; duplicates and conflicts in one file; reordered and additional
           columns, a header that lacks or repeats a column; quoted commas, quotes and line ends, unicode;
           invoices with and without a rate, credit notes; scores out of range.

Only what the contract decides is produced: no mutation depends on a reading of it that could as well
be another one, save those that the oracle marks as a CHOICE and that no useful test can do without.
"""

import argparse
import csv
import datetime as dt
import glob
import gzip
import io
import json
import os
import random
import subprocess

MTIME = dt.datetime(2025, 9, 15, tzinfo=dt.timezone.utc)          # of nearly all files


class Num(str):
    """A JSON number, kept (and written) as its text."""
    __slots__ = ()


# ------------------------------------------------------------------------------------------------
# Writing JSON in more than one way
# ------------------------------------------------------------------------------------------------

def dump(v, item=", ", colon=": ", escape=False):
    if isinstance(v, Num):
        return str(v)
    if isinstance(v, dict):
        return "{" + item.join(json.dumps(k, ensure_ascii=escape) + colon + dump(x, item, colon, escape)
                               for k, x in v.items()) + "}"
    if isinstance(v, list):
        return "[" + item.join(dump(x, item, colon, escape) for x in v) + "]"
    return json.dumps(v, ensure_ascii=escape)


NUMERIC = ("value", "cost_usd_increment", "carbon_kg", "genai_tokens", "schema_version")


def reformat(rng, event):
    """The same content, written differently."""
    items = [(k, list(v) if isinstance(v, list) else v) for k, v in event.items()]
    rng.shuffle(items)
    out = dict(items)
    for k in NUMERIC:
        if type(out.get(k)) is Num and rng.random() < 0.4:
            text = str(out[k])
            if "e" not in text.lower():
                text = text + "00" if "." in text else text + rng.choice([".0", "e0"])
            out[k] = rng.choice([Num(text), text, f" {text} "])
    for k in ("unit", "value", "metric", "carbon_kg"):        # absent is null
        if k in out and out[k] is None and rng.random() < 0.5:
            del out[k]
    item, colon = rng.choice([(",", ":"), (", ", ": "), (" , ", " : "), (",\t", ":")])
    pad = rng.choice(["", " ", "\t"])
    return (pad + dump(out, item, colon, escape=rng.random() < 0.5) + pad).encode()


# ------------------------------------------------------------------------------------------------
# Events
# ------------------------------------------------------------------------------------------------

def chance(rng, p):
    return rng.random() < p


def load_events(landing):
    events = []
    for path in sorted(glob.glob(os.path.join(landing, "usage_events_stream", "*.jsonl"))):
        with open(path, encoding="utf-8-sig") as f:
            for line in f:
                if line.strip():
                    events.append(json.loads(line, parse_float=Num, parse_int=Num))
    return events


def thin_out(rng, events):
    """Some date ranges with (nearly) no events, at least one of them longer than a week."""
    days = sorted({e["timestamp"][:10] for e in events})
    gone = {}
    for length, keep in ((9, 0.0), (3, 0.0), (5, 0.03)):
        start = rng.randrange(max(1, len(days) - length))
        for d in days[start:start + length]:
            gone[d] = min(keep, gone.get(d, 1.0))
    return [e for e in events if e["timestamp"][:10] not in gone or rng.random() < gone[e["timestamp"][:10]]]


def odd_values(rng, e, users):
    """Field-level oddities that the contract accepts."""
    if chance(rng, 0.06):
        e["service"] = rng.choice(["  Compute ", "GENAI", "GenAI", "weird", "S3 storage", None, "\tDatabase",
                                   "NETWORKING", "storage ", Num("7"), "análisis"])
        if chance(rng, 0.1):
            del e["service"]
    if chance(rng, 0.06):
        e["region"] = rng.choice(["US-EAST", " eu-west-1 ", "ap-northeast-1", "us-east-2", "mars-north", None,
                                  "Sa-East", ["us-east"], "eu-central-1"])
    if chance(rng, 0.04):
        e["metric"] = rng.choice([None, "gpu_hours", "requests_total", "egress_gb", None])
        if chance(rng, 0.3):
            e["unit"] = None
    if chance(rng, 0.12):
        e["user_id"] = rng.choice(users) if chance(rng, 0.8) else f"user_ghost{rng.randrange(9)}"
    if chance(rng, 0.03):
        e["schema_version"] = rng.choice([Num("3"), "2", Num("2.0"), None, Num("7"), "two"])
    if chance(rng, 0.02):
        e.pop("schema_version", None)
    if chance(rng, 0.04) and type(e.get("value")) is Num:
        e["value"] = rng.choice([str(e["value"]), f"  {e['value']} ", f"{e['value']}e0"])
    if chance(rng, 0.03):
        e["value"] = rng.choice([None, "n/a", True, {"v": Num("1")}, Num("0.000001"), Num("-3.5"), Num("2.5"),
                                 Num("1e3"), Num("123456.7890120"), Num("0.5")])
    if chance(rng, 0.03):
        e["cost_usd_increment"] = rng.choice([str(e["cost_usd_increment"]), f" {e['cost_usd_increment']}\t"])
    if chance(rng, 0.015):
        e["cost_usd_increment"] = rng.choice([Num("-0.01"), Num("-0.010001"), Num("-0.009999"), "-0.0100000",
                                              Num("-1e-2"), Num("0"), Num("-0.0"), Num("1.5E2"), Num("0.000001"),
                                              Num("4321.123456"), Num("-12.5")])
    if chance(rng, 0.02) and "carbon_kg" in e:
        e["carbon_kg"] = rng.choice([None, "0.25", "lots", Num("0.000001"), False])
    if chance(rng, 0.02):
        e["genai_tokens"] = rng.choice([Num("12.0"), "900", Num("1e3"), None, "many", Num("0")])
    if chance(rng, 0.02):
        e["unit"] = rng.choice([None, "COUNT", "bytes", Num("1")])
    if chance(rng, 0.02):
        e["resource_id"] = rng.choice([None, "res_ghost", Num("12")])
    if chance(rng, 0.01):
        e["org_id"] = rng.choice(["org_ghost", "ORG ÜÑÍ", "org,\"quoted\""])
    if chance(rng, 0.03):
        e["timestamp"] = e["timestamp"][:-1] + rng.choice([".25Z", ".000001Z", ".999999Z", ".000Z"])
    if chance(rng, 0.01):
        e["timestamp"] = e["timestamp"][:11] + rng.choice(["00:00:00Z", "23:59:59Z", "23:59:59.999999Z"])
    if chance(rng, 0.04):
        e[rng.choice(["trace_id", "tags", "Größe", "cost_usd"])] = rng.choice(
            ["abc", Num("17"), True, ["x", "y"], {"note": "\"quoted\", with\nline"}, "日本 🚀"])


BROKEN = ("key", "required", "type", "range", "future")


def break_event(rng, e):
    """Breaks an event in one way, sometimes in two (the first reason of the contract's list counts)."""
    kinds = rng.sample(BROKEN, 2) if chance(rng, 0.25) else [rng.choice(BROKEN)]
    for kind in kinds:
        if kind == "key":
            if chance(rng, 0.4):
                e.pop("event_id", None)
            else:
                e["event_id"] = rng.choice([None, ""])
        elif kind == "required":
            k = rng.choice(["timestamp", "org_id", "cost_usd_increment"])
            if chance(rng, 0.4):
                e.pop(k, None)
            else:
                e[k] = rng.choice([None, ""])
        elif kind == "type":
            k, values = rng.choice([
                ("timestamp", ["yesterday", "2025-13-41T00:00:00Z", Num("1752182760"), "2025-07-10", True,
                               "2025-02-29T10:00:00Z", "2025-07-10T25:00:00Z"]),
                ("org_id", [Num("5"), ["org"], {"id": "org"}, False]),
                ("event_id", [Num("99"), True]),
                ("cost_usd_increment", ["free", True, [Num("1")], {}, "12,5", "1.2.3", "$4", "0x10"])])
            e[k] = rng.choice(values)
        elif kind == "range":
            k, values = rng.choice([
                ("cost_usd_increment", [Num("1e400"), "NaN", "-Infinity", "inf", Num("0.0000001"),
                                        Num("1234567890123.5"), Num("1e12"), Num("12.3456789"), Num("1e-400")]),
                ("value", ["NaN", Num("1e999999"), Num("99999999999999999999"), Num("0.12345678"), "1e400"]),
                ("carbon_kg", [Num("1.00000001"), "Infinity", Num("1e30")]),
                ("genai_tokens", [Num("2.5"), Num("9223372036854775808"), Num("1e30"), "NaN"]),
                ("schema_version", [Num("2147483648"), Num("1.5"), Num("1e10")])])
            e[k] = rng.choice(values)
        else:
            e["timestamp"] = rng.choice(["2099-01-01T00:00:00Z", "2025-09-16T00:00:00.000001Z",
                                         "2025-12-31T23:59:59Z", "9999-12-31T23:59:59Z"])


def garbage(rng, sample):
    """A line that is no JSON object."""
    good = dump(sample).encode()
    extra = dict(sample)
    kind = rng.randrange(16)
    if kind == 0:
        return good[:rng.randrange(1, len(good))]
    if kind == 1:
        return b"%#@! not json at all"
    if kind == 2:
        at = good.index(b"org_") + 2
        return good[:at] + rng.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\xaf"]) + good[at:]
    if kind == 3:
        return b"[" + good + b"]"
    if kind == 4:
        return rng.choice([b"null", b"42", b"true", b'"text"', b"{}x", b"[]"])
    if kind == 5:
        return good + good
    if kind == 6:                                                  # a key twice
        return good[:-1] + b', "org_id": ' + dump(sample["org_id"]).encode() + b"}"
    if kind == 7:                                                  # a key twice, once escaped
        return good[:-1] + b', "o\\u0072g_id": "org_x"}'
    if kind == 8:                                                  # a key twice, further down
        return good[:-1] + b', "extra": {"a": {"b": 1, "b": 1}}}'
    if kind == 9:                                                  # 65 deep: one too many
        return good[:-1] + b', "deep": ' + b"[" * 64 + b"]" * 64 + b"}"
    if kind == 10:
        return b'{"a":' * 300 + b"1" + b"}" * 300
    if kind == 11:
        return good[:-1] + b', "deep": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    if kind == 12:
        return good.replace(b'"cost_usd_increment": ', b'"cost_usd_increment": NaN, "was": ')
    if kind == 13:
        return good[:-1] + b', "ctl": "a\x01b"}'
    if kind == 14:
        return good[:-1] + b",}"
    extra["value"] = Num("01")
    return dump(extra).encode()


def conflicting(rng, e):
    """The same event id and time with other content."""
    o = dict(e)
    kind = rng.randrange(6)
    if kind == 0:
        o["cost_usd_increment"] = Num("77.77")
    elif kind == 1:
        o["region"] = "antarctica"
    elif kind == 2:
        o["org_id"] = "org_other"
    elif kind == 3:
        o["note"] = f"only here {rng.randrange(10 ** 6)}"          # an unknown field is content too
    elif kind == 4:
        o["value"] = Num("31337")
    else:
        o["cost_usd_increment"] = Num("-5.5")                      # quarantined either way, for other reasons
    return o


def constant_org(rng, resource):
    """An org whose costs are all the same: standard deviation and MAD are 0, on 40 days."""
    out = []
    first = dt.date(2025, 7, 10)
    for i in range(160):
        day = first + dt.timedelta(days=i // 4)
        cost = "0.1" if i % 53 or i < 100 else "9.9"               # a spike or two, late
        out.append({"event_id": f"evt_const{i:06d}", "timestamp": f"{day}T{i % 24:02d}:00:00Z",
                    "org_id": "org_const001", "resource_id": resource, "service": "networking", "region": "us-west",
                    "metric": "requests", "value": Num("1"), "unit": "count", "cost_usd_increment": Num(cost),
                    "schema_version": Num("2"), "carbon_kg": Num("0.1")})
    return out


def event_lines(rng, landing, limit, users, resources):
    """The lines of all event files, as byte strings in random order."""
    events = load_events(landing)
    if limit is not None and limit < len(events):
        events = rng.sample(events, limit)
    events = thin_out(rng, events)
    lines = []
    for e in events:
        odd_values(rng, e, users)
        lines.append(reformat(rng, e) if chance(rng, 0.2) else dump(e).encode())
        twin = rng.random()
        if twin < 0.02:                                            # the same line again
            lines.append(lines[-1])
        elif twin < 0.04:                                          # the same content again
            lines.append(reformat(rng, e))
        elif twin < 0.06:                                          # other content
            lines.append(dump(conflicting(rng, e)).encode())
        elif twin < 0.065:                                         # a bit of everything
            lines += [dump(conflicting(rng, e)).encode(), reformat(rng, e), dump(conflicting(rng, e)).encode(), lines[-1]]
        elif twin < 0.07:                                          # the id again on another day: another event
            other = dict(e)
            other["timestamp"] = rng.choice(["2025-07-05T12:00:00Z", "2025-08-30T01:02:03Z"])
            lines.append(dump(other).encode())
    lines += [dump(e).encode() for e in constant_org(rng, resources[0])]
    for e in rng.sample(events, max(40, len(events) // 60) if len(events) > 40 else len(events)):
        broken = dict(e)
        broken["event_id"] = e["event_id"] + "x"
        break_event(rng, broken)
        lines.append(dump(broken).encode())
    base = {k: v for k, v in events[0].items() if k in ("org_id", "timestamp", "service", "metric", "value", "unit")}
    base.update(cost_usd_increment=Num("1.25"), schema_version=Num("2"))
    lines += [garbage(rng, {**base, "event_id": f"evt_garbage{i}"}) for i in range(max(48, len(events) // 100))]
    lines += [b"{}", b' { } ']
    # at the limits
    lines.append(dump({**base, "event_id": "evt_future_no", "timestamp": "2025-09-16T00:00:00Z"}).encode())
    lines.append(dump({**base, "event_id": "evt_future_yes", "timestamp": "2025-09-16T00:00:01Z"}).encode())
    lines.append(dump({**base, "event_id": "evt_deep_ok"}).encode()[:-1] + b', "deep": ' + b"[" * 63 + b"]" * 63 + b"}")
    lines.append(dump({**base, "event_id": "evt_big", "value": Num("999999999999.999999")}).encode())
    lines.append(dump({**base, "event_id": "evt_bigint", "genai_tokens": Num("9007199254740993")}).encode())
    # a byte order mark or a line end more or less does not decide these two
    for name, size in (("evt_line_ok", (1 << 20) - 16), ("evt_line_long", (1 << 20) + 16)):
        head = dump({**base, "event_id": name})[:-1] + ', "blob": "'
        lines.append((head + "x" * (size - len(head) - 2) + '"}').encode())
    rng.shuffle(lines)
    return lines


NAMES = ["events_part_{:04d}.jsonl", "backfill-2025-08-{:02d}.jsonl", "Z{}.jsonl", "stream 2025-07-15T09{:02d}.jsonl",
         "part-{}-añadido.jsonl", "{}.jsonl", "events.v2.{}.jsonl"]


def write_events(rng, out, lines):
    folder = os.path.join(out, "usage_events_stream")
    os.makedirs(folder)
    n = rng.randrange(7, 24)
    names = sorted({rng.choice(NAMES).format(i + 1) for i in range(n)})
    rng.shuffle(names)
    files = {name: [] for name in names}
    weights = [rng.choice([1, 1, 2, 5, 20]) for _ in names]
    # half of the files take any line; the others mostly one half of the calendar each
    leaning = {name: rng.choice([None, b"-07-", b"-08-"]) for name in names}
    for line in lines:
        for _ in range(4):
            name = rng.choices(names, weights)[0]
            if leaning[name] is None or leaning[name] in line[:400]:
                break
        files[name].append(line)
    # one small file that is older than some of its events: those are in its future
    small = [name for name in names if 0 < len(files[name]) < len(lines) // 10]
    early = small[0] if small else None
    for name in names:
        body = files[name]
        eol = b"\r\n" if chance(rng, 0.25) else b"\n"
        data = bytearray(b"\xef\xbb\xbf" if chance(rng, 0.25) else b"")
        for line in body:
            if chance(rng, 0.01):
                data += rng.choice([b"", b"   ", b"\t", b" \t "]) + eol
            data += line + eol
        if chance(rng, 0.3) and body:
            del data[-len(eol):]                                   # no line end at the end
        put(rng, os.path.join(folder, name), bytes(data), compress=chance(rng, 0.3),
            mtime=dt.datetime(2025, 8, 20, 6, tzinfo=dt.timezone.utc) if name == early else MTIME)
    put(rng, os.path.join(folder, "empty.jsonl"), b"")
    put(rng, os.path.join(folder, "blank.jsonl"), b"\xef\xbb\xbf\r\n  \n\n")
    ignored = b"\n".join(line.replace(b"evt_", b"evt_ignored_") for line in lines[:50]) + b"\n"
    for name in (".hidden.jsonl", "_partial.jsonl", "being_written.jsonl.tmp", "notes.txt"):
        put(rng, os.path.join(folder, name), ignored)


# ------------------------------------------------------------------------------------------------
# Batch sources
# ------------------------------------------------------------------------------------------------

TEXTS = ["Ünïcode & Söhne, S.A.", 'The "Quoted" Company', "two\nlines", "日本クラウド 🚀", "comma, comma", "  spaces  ",
         'all, of "it"\nat once', "O'Hara; Ltd", "tab\there", "null", "\"start"]


def load_csv(landing, name):
    with open(os.path.join(landing, name + ".csv"), encoding="utf-8-sig", newline="") as f:
        rows = list(csv.reader(f))
    return rows[0], [dict(zip(rows[0], r)) for r in rows[1:] if r]


# name -> (key columns, required columns, text columns to decorate, {column: odd values that are accepted},
#          {column: values that are not})
BATCH = {
    "customers_orgs": (["org_id"], ["signup_date"], ["org_name", "sales_rep"],
        {"plan_tier": ["enterprise", "free", "pro", ""], "hq_region": ["us-east", "eu-west", ""],
         "is_enterprise": ["TRUE", "false", "0", "1", "maybe", ""],
         "nps_score": ["150", "-100.5", "100", "-100", "42", " 7.5 ", "n/a", ""], "lifecycle_stage": ["at_risk", "active"]},
        {"nps_score": ["NaN", "1e30", "0.12345678"], "signup_date": ["soon", "2025-02-30"]}),
    "users": (["user_id"], ["org_id", "created_at"], ["role"],
        {"role": ["admin", "analyst", ""], "active": ["False", "true", "1", "0", "yes", ""],
         "email": ["USER.Ü@Example.COM", "", "a,b@example.com"], "last_login": ["", "never", "2025-08-30"]},
        {"created_at": ["2025-00-10", "first"]}),
    "resources": (["resource_id"], ["org_id", "created_at"], [],
        {"service": ["GENAI", " Storage ", "quantum", "", "compute"], "state": ["stopped", "running", "terminated", ""],
         "region": ["eu-west", "moon"], "tags_json": ["", "[]", '["a:1", "ü, \\"x\\""]', "not json", '["env:prod","env:prod"]']},
        {"created_at": ["--", "2025/07/01"]}),
    "billing_monthly": (["invoice_id"], ["org_id", "month", "subtotal", "currency"], [],
        {"subtotal": ["-250.5", "1000.123456", "0", " 77.7 ", "0.000001", "-0.01"], "credits": ["", "12.345678", "0", "oops"],
         "taxes": ["", "3.3", "-1"], "currency": ["USD", "EUR", "BRL"],
         "exchange_rate_to_usd": ["", "1.1", "0.333333", "1", "0.0015", "n/a"], "month": ["2025-08-01", "2025-06-15", "2025-05-01"]},
        {"subtotal": ["abc", "1e400", "NaN", "0.1234567"], "credits": ["Infinity", "1.00000001"],
         "exchange_rate_to_usd": ["0.12345678"], "month": ["august", "2025-13-01"]}),
    "support_tickets": (["ticket_id"], ["org_id", "created_at"], ["category"],
        {"severity": ["critical", "high", "CRITICAL"], "csat": ["0", "6", "4.5", "1", "5", "5.000001", "0.999999", "good", ""],
         "resolved_at": ["", "2025-09-01", "pending"], "sla_breached": ["True", "0", "1", "", "unknown"]},
        {"csat": ["NaN", "1e15"], "created_at": ["today"]}),
    "marketing_touches": (["touch_id"], ["org_id", "timestamp"], ["campaign"],
        {"channel": ["", "email", "carrier, pigeon", "unknown"], "clicked": ["TRUE", "", "0"], "converted": ["1", "False", "??"]},
        {"timestamp": ["then", "2025-06-31"]}),
    "nps_surveys": (["org_id", "survey_date"], [], ["comment"],
        {"nps_score": ["150", "-101", "100.000001", "-100", "55.5", "", "great"], "comment": ["", 'He said "no"', "a\nb, c"]},
        {"nps_score": ["-inf", "33.3333333"], "survey_date": ["2025-99-01", "whenever"]}),
}


def vary(rng, row, spec):
    """Another version of a row: one to three columns changed, the key kept."""
    row = dict(row)
    _, _, texts, odd, _ = spec
    for _ in range(rng.randrange(1, 4)):
        if texts and chance(rng, 0.25):
            row[rng.choice(texts)] = rng.choice(TEXTS)
        else:
            column = rng.choice(sorted(odd))
            row[column] = rng.choice(odd[column])
    return row


def versions_of(rng, rows, spec):
    """The states of a source over time: a list of row lists, each a file's content."""
    def key(r):
        return tuple(r[k] for k in spec[0])

    rows = [vary(rng, r, spec) if chance(rng, 0.15) else r for r in rows]
    late = [r for r in rows if chance(rng, 0.12)]                   # keys that come later
    state = {key(r): r for r in rows if r not in late}
    first = dict(state)
    files = [list(state.values())]
    for n in range(rng.randrange(3, 6)):
        before = dict(state)
        for k in sorted(state):
            p = rng.random()
            if p < 0.10:
                state[k] = vary(rng, state[k], spec)
            elif p < 0.20 and k in first:
                state[k] = first[k]                                # back to what it was: A, B, A
        for r in late[n::4]:
            state.setdefault(key(r), r)
        # a full snapshot, or a delta with the changes and some repeated rows
        rows_now = [state[k] for k in sorted(state)
                    if state[k] is not before.get(k) or chance(rng, rng.choice([0.05, 0.9]))]
        rng.shuffle(rows_now)
        files.append(rows_now)
    return files


def write_csv(rng, header, rows, style):
    """A CSV file with bad records among the good ones, as bytes."""
    eol = "\r\n" if style["crlf"] else "\n"
    buf = io.StringIO()
    w = csv.writer(buf, lineterminator=eol, quoting=csv.QUOTE_ALL if style["quote_all"] else csv.QUOTE_MINIMAL)
    w.writerow(header)
    out = bytearray(b"\xef\xbb\xbf" if style["bom"] else b"")
    out += buf.getvalue().encode()
    for row in rows:
        if chance(rng, 0.01):
            out += rng.choice([b"", b"   ", b"\t"]) + eol.encode()
        if isinstance(row, bytes):
            out += row + eol.encode()
            continue
        buf.seek(0)
        buf.truncate()
        w.writerow([row.get(c, "") for c in header])
        out += buf.getvalue().encode()
    return bytes(out)


def spoil(rng, header, rows, spec, tag):
    """Adds to a file's rows: duplicates and conflicts in the file, and every reason for quarantine."""
    keys, required, _, _, bad = spec
    out = list(rows)
    for r in rng.sample(rows, min(len(rows), 2 + len(rows) // 40)):
        out.append(dict(r) if chance(rng, 0.5) else vary(rng, r, spec))
    fresh = 0

    def new_row():
        nonlocal fresh
        fresh += 1
        r = dict(rng.choice(rows))
        if keys == ["org_id", "survey_date"]:
            r["survey_date"] = f"2025-04-{1 + fresh % 28:02d}"
        else:
            r[keys[0]] = f"{r[keys[0]]}_{tag}_{fresh}"
        return r

    for _ in range(2 + len(rows) // 80):
        r = new_row()
        r[rng.choice(keys)] = ""
        out.append(r)
        if required:
            r = new_row()
            r[rng.choice(required)] = ""
            out.append(r)
        r = new_row()
        column = rng.choice(sorted(bad))
        r[column] = rng.choice(bad[column])
        out.append(r)
    width = len(header)
    out.append(b"a" + b",b" * (width - 2))                          # a column too few
    out.append(b",".join([b"z"] * (width + 1)))                     # and one too many
    out.append(b"\xff\xfe" + b",q" * (width - 1))                   # not UTF-8
    out.append(b'"two\nlines"' + b",x" * width)                     # too many columns, on two lines
    out.append(b"," * (width - 1))                                  # all columns empty
    rng.shuffle(out)
    return out


def write_batch(rng, out, landing, name):
    spec = BATCH[name]
    header, rows = load_csv(landing, name)
    if name == "billing_monthly":
        rows += extra_invoices(rows)
    elif name == "customers_orgs":
        rows.append({**rows[0], "org_id": "org_const001", "org_name": TEXTS[0]})
    files = versions_of(rng, rows, spec)
    stamps = ["2025-07-05", "2025-07-20", "2025-07-20T0930", "2025-08-01", "2025-08-15T2359", "2025-08-15"]
    stamps = stamps[:len(files) - 1]
    rng.shuffle(stamps)                                             # the order of content is not the order of names
    letters = list("qzamkx")
    rng.shuffle(letters)
    for i, content in enumerate(files):
        if i == len(files) - 1:
            file, mtime = f"{name}.csv", MTIME                      # no date in its name: its modification time
        else:
            # a letter before the date: the order of paths is not the order of times
            middle = rng.choice(["_", f"_{letters[i]}_", f"-{letters[i]}-"])
            file, mtime = f"{name}{middle}{stamps[i]}.csv", MTIME
        columns = list(header)
        if i and chance(rng, 0.4):
            rng.shuffle(columns)
        if i and chance(rng, 0.3):
            columns.insert(rng.randrange(len(columns) + 1), "extra_note")
            content = [{**r, "extra_note": rng.choice(["x", "y, z"])} for r in content]
        if content:
            content = spoil(rng, columns, content, spec, f"f{i}")
        style = {"crlf": chance(rng, 0.3), "bom": chance(rng, 0.3), "quote_all": chance(rng, 0.2)}
        data = write_csv(rng, columns, content, style)
        if chance(rng, 0.3):                                        # a quote that never ends, on the last line
            data += b'"no end' + b",x" * (len(columns) - 1)
        put(rng, os.path.join(out, file), data, compress=chance(rng, 0.25), mtime=mtime)
    # two files of the same time: the greater path is the later one
    twins = rng.sample(rows, min(len(rows), 6))
    for letter in "ab":
        put(rng, os.path.join(out, f"{name}_same_time_{letter}_2025-08-10.csv"),
            write_csv(rng, header, [vary(rng, r, spec) for r in twins], {"crlf": False, "bom": False, "quote_all": False}))
    put(rng, os.path.join(out, f"_{name}_2025-08-20.csv"), b"ignored\n")
    put(rng, os.path.join(out, f"{name}_2025-08-21.csv.tmp"), b"ignored\n")
    return header, rows


def write_bad_headers(rng, out, landing):
    """Files that are quarantined whole: a header that lacks a column, and one that repeats one."""
    plain = {"crlf": False, "bom": False, "quote_all": False}
    header, rows = load_csv(landing, "support_tickets")
    put(rng, os.path.join(out, "support_tickets_lacks_2025-08-25.csv"),
        write_csv(rng, [c for c in header if c != "csat"], rows[:9], plain))
    header, rows = load_csv(landing, "users")
    put(rng, os.path.join(out, "users_repeats_2025-08-25.csv"), write_csv(rng, header + ["role"], rows[:7], plain))
    header, _ = load_csv(landing, "resources")
    put(rng, os.path.join(out, "resources_only_header_2025-08-26.csv"), write_csv(rng, header, [], plain))
    put(rng, os.path.join(out, "nps_surveys_empty_2025-08-26.csv"), b"")


def extra_invoices(rows):
    """More invoices of one org and month: credit notes, other currencies, with and without a rate."""
    out = []
    for i, (subtotal, currency, rate) in enumerate([
            ("-120.555555", "USD", "1"), ("999.99", "EUR", "1.087654"), ("10", "EUR", ""), ("500", "BRL", "0.184321"),
            ("-33.333333", "ARS", "0.001515"), ("0.000001", "ARS", "0.5"), ("-0.000001", "ARS", "0.5"),
            ("0.000003", "EUR", "0.5"), ("250", "USD", ""), ("123456789.654321", "EUR", "1.999999")]):
        row = dict(rows[i % 5])
        row.update(invoice_id=f"inv_extra{i:02d}", subtotal=subtotal, currency=currency, exchange_rate_to_usd=rate,
                   credits="1.5" if i % 2 else "", taxes="" if i % 3 else "7.77")
        out.append(row)
    return out


# ------------------------------------------------------------------------------------------------

ZSTD = False                                                        # --zstd


def put(rng, path, data, compress=False, mtime=MTIME):
    if compress and rng.random() < 0.5 and ZSTD:
        path, data = path + ".zst", subprocess.run(["zstd", "-cq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    elif compress:
        path, data = path + ".gz", gzip.compress(data, 6, mtime=0)
    with open(path, "wb") as f:
        f.write(data)
    os.utime(path, (mtime.timestamp(), mtime.timestamp()))


def main():
    p = argparse.ArgumentParser(description="Makes nastier data from a landing folder.")
    p.add_argument("landing")
    p.add_argument("out")
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--events", type=int, help="take only this many of the events")
    p.add_argument("--zstd", action="store_true", help="compress half of the compressed files with zstd")
    a = p.parse_args()
    global ZSTD
    ZSTD = a.zstd
    if os.path.isdir(a.out) and os.listdir(a.out):
        raise SystemExit(f"{a.out} is not empty")
    os.makedirs(a.out, exist_ok=True)
    rng = random.Random(a.seed)
    _, users = load_csv(a.landing, "users")
    _, resources = load_csv(a.landing, "resources")
    for name in BATCH:
        write_batch(rng, a.out, a.landing, name)
    write_bad_headers(rng, a.out, a.landing)
    write_events(rng, a.out, event_lines(rng, a.landing, a.events, [u["user_id"] for u in users],
                                         [r["resource_id"] for r in resources]))


if __name__ == "__main__":
    main()
