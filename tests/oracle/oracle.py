#!/usr/bin/env python3
"""An independent oracle for the Cloud Provider Analytics contract.

    oracle.py LANDING OUT_DIR

A second, deliberately plain reading of the contract, written without looking at the engine it
checks. It reads a landing folder in one pass, holds everything in memory, and writes one
canonical file per table, so that an engine's tables can be compared with it row by row.
Python 3.11, standard library only (.zst landing files need the `zstandard` module or the `zstd`
program).

What it writes to OUT_DIR

    silver.<table>.jsonl     usage_events and the seven batch sources (current versions)
    silver.<table>_history.jsonl   SCD type 2 of customers_orgs, users, resources
    gold.<mart>.jsonl        the nine marts
    quarantine.jsonl         source, source_file, source_line, error_type
    balance.json             per source: the record and the money balance

Canonical form: one compact JSON object per line, keys in a fixed order, rows sorted by key.
DECIMAL: a string with exactly six fraction digits; INT/BIGINT: a JSON number; DOUBLE: a JSON
number (repr); DATE 'YYYY-MM-DD'; TIMESTAMP 'YYYY-MM-DDTHH:MM:SS[.ffffff]Z'; maps: objects with
sorted keys; lists: arrays; null: null.

How it computes. Every decimal is an integer of millionths ("micros") from the moment it is parsed,
so nothing is ever rounded except where the contract says so. The anomaly statistics are computed
from those integers exactly too: flags are exact comparisons, and a score is rounded once, to the
nearest double. An engine that works in doubles may differ in the last digits of a *score*.

Where the contract is silent, the choice made here is marked with "CHOICE:".
"""

import datetime as dt
import decimal
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from bisect import bisect_right
from collections import defaultdict

try:
    import zstandard
except ImportError:
    zstandard = None

MICRO = 10 ** 6                      # one unit, in micros
DECIMAL_18_6_LIMIT = 10 ** 18        # |micros| must stay below
DAY_US = 86_400 * MICRO              # one day in microseconds
EPOCH = dt.datetime(1970, 1, 1)
EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
MAX_LINE = 1 << 20                   # a longer line is malformed
MAX_DEPTH = 64                       # deeper nesting is malformed
BLANK = b" \t\r\n\x0b\x0c"           # CHOICE: white space is ASCII white space


# ------------------------------------------------------------------------------------------------
# Exact arithmetic
# ------------------------------------------------------------------------------------------------

def div_round(a, b):
    """a / b rounded half away from zero, on integers."""
    if b < 0:
        a, b = -a, -b
    q = (2 * abs(a) + b) // (2 * b)
    return -q if a < 0 else q


def dec(micros):
    """Micros as a canonical decimal string, null as null."""
    if micros is None:
        return None
    whole, frac = divmod(abs(micros), MICRO)
    return f"{'-' if micros < 0 else ''}{whole}.{frac:06d}"


def add_null(total, x):
    """SQL sum: null when no term, nulls ignored."""
    if x is None:
        return total
    return x if total is None else total + x


def max_null(a, b):
    if b is None:
        return a
    return b if a is None or b > a else a


# ------------------------------------------------------------------------------------------------
# Typed parsing. A parser returns (status, value), status one of OK, BAD (is not one), RANGE (is
# one, but the declared type cannot hold it exactly).
# ------------------------------------------------------------------------------------------------

OK, BAD, RANGE = "ok", "bad", "range"


class Num(str):
    """A JSON number, kept as the text it was written in."""
    __slots__ = ()


# CHOICE: in a string, a leading plus, leading zeros, ".5" and "5." are numbers as well.
NUMBER = re.compile(r"([+-]?)(?:(\d+)(?:\.(\d*))?|\.(\d+))(?:[eE]([+-]?\d+))?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII)


def scaled_integer(v, scale, low, high):
    """The number v times 10^scale as an integer in low..high."""
    if not isinstance(v, str):                      # true, false, list, object
        return BAD, None
    text = v.strip(" \t\r\n\x0b\x0c")
    m = NUMBER.fullmatch(text)
    if not m:
        return (RANGE, None) if NOT_FINITE.fullmatch(text) else (BAD, None)
    sign, whole, frac, only_frac, exp = m.groups()
    whole, frac, exp = whole or "", frac or only_frac or "", exp or "0"
    digits = (whole + frac).lstrip("0")
    if not digits:
        return OK, 0
    kept = digits.rstrip("0")                       # trailing zeros are not digits to hold
    exp_sign = -1 if exp[0] == "-" else 1
    exp_digits = exp.lstrip("+-").lstrip("0") or "0"
    if len(exp_digits) > 9 or len(kept) > 30:       # far beyond any declared type
        return RANGE, None
    shift = exp_sign * int(exp_digits) - len(frac) + (len(digits) - len(kept)) + scale
    if shift < 0 or shift + len(kept) > 30:         # a fraction is left / far too large
        return RANGE, None
    n = int(kept) * 10 ** shift
    if sign == "-":
        n = -n
    return (OK, n) if low <= n <= high else (RANGE, None)


def p_decimal(v):
    return scaled_integer(v, 6, -DECIMAL_18_6_LIMIT + 1, DECIMAL_18_6_LIMIT - 1)


def p_int(v):
    return scaled_integer(v, 0, -2 ** 31, 2 ** 31 - 1)


def p_bigint(v):
    return scaled_integer(v, 0, -2 ** 63, 2 ** 63 - 1)


def p_text(v):
    """Text columns take JSON strings only; nothing is trimmed."""
    return (OK, v) if type(v) is str else (BAD, None)


def p_bool(v):
    t = v.lower() if type(v) is str else None
    if t in ("true", "1"):
        return OK, True
    if t in ("false", "0"):
        return OK, False
    return BAD, None


DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)


def day_number(y, m, d):
    """Days since 1970-01-01, or None where there is no such day."""
    try:
        return dt.date(int(y), int(m), int(d)).toordinal() - EPOCH_DAY
    except ValueError:
        return None


def p_date(v):
    """CHOICE: exactly YYYY-MM-DD."""
    m = DATE.fullmatch(v) if type(v) is str else None
    day = day_number(*m.groups()) if m else None
    return (BAD, None) if day is None else (OK, day)


TIMESTAMP = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(Z|[+-]\d{2}:\d{2})", re.ASCII)


def p_timestamp(v):
    """Microseconds since the epoch, UTC. CHOICE: `Z` or an offset is required; a fraction finer than
    a microsecond is not cut in silence, the timestamp does not parse; no leap seconds."""
    m = TIMESTAMP.fullmatch(v) if type(v) is str else None
    if not m:
        return BAD, None
    y, mo, d, h, mi, s, frac, zone = m.groups()
    day = day_number(y, mo, d)
    h, mi, s = int(h), int(mi), int(s)
    frac = (frac or "").rstrip("0")
    if day is None or h > 23 or mi > 59 or s > 59 or len(frac) > 6:
        return BAD, None
    seconds = day * 86_400 + h * 3600 + mi * 60 + s
    if zone != "Z":
        oh, om = int(zone[1:3]), int(zone[4:6])
        if oh > 23 or om > 59:
            return BAD, None
        seconds -= (1 if zone[0] == "+" else -1) * (oh * 3600 + om * 60)
    return OK, seconds * MICRO + int(frac.ljust(6, "0"))


def fmt_date(day):
    return None if day is None else dt.date.fromordinal(day + EPOCH_DAY).isoformat()


def fmt_ts(us):
    if us is None:
        return None
    t = EPOCH + dt.timedelta(microseconds=us)
    return t.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + (f".{t.microsecond:06d}" if t.microsecond else "") + "Z"


# ------------------------------------------------------------------------------------------------
# The sources
# ------------------------------------------------------------------------------------------------

class Source:
    def __init__(self, name, key, required, money, columns):
        self.name = name
        self.key = key                               # natural key columns
        self.required = required                     # required beyond the key
        self.money = money                           # balanced columns
        self.columns = columns                       # name -> parser, in the contract's order
        self.must = set(key) | set(required)


T, D, B, N = p_text, p_date, p_bool, p_decimal

EVENTS = Source(
    "usage_events", ["event_id"], ["timestamp", "org_id", "cost_usd_increment"], ["cost_usd_increment"],
    dict(event_id=T, timestamp=p_timestamp, org_id=T, resource_id=T, service=T, region=T, metric=T, value=N,
         unit=T, cost_usd_increment=N, schema_version=p_int, carbon_kg=N, genai_tokens=p_bigint, user_id=T))

BATCH = {s.name: s for s in [
    Source("customers_orgs", ["org_id"], ["signup_date"], [],
           dict(org_id=T, org_name=T, industry=T, hq_region=T, plan_tier=T, is_enterprise=B, signup_date=D,
                sales_rep=T, lifecycle_stage=T, marketing_source=T, nps_score=N)),
    Source("users", ["user_id"], ["org_id", "created_at"], [],
           dict(user_id=T, org_id=T, email=T, role=T, active=B, created_at=D, last_login=D)),
    Source("resources", ["resource_id"], ["org_id", "created_at"], [],
           dict(resource_id=T, org_id=T, service=T, region=T, created_at=D, state=T, tags_json=T)),
    Source("billing_monthly", ["invoice_id"], ["org_id", "month", "subtotal", "currency"],
           ["subtotal", "credits", "taxes"],
           dict(invoice_id=T, org_id=T, month=D, subtotal=N, credits=N, taxes=N, currency=T,
                exchange_rate_to_usd=N)),
    Source("support_tickets", ["ticket_id"], ["org_id", "created_at"], [],
           dict(ticket_id=T, org_id=T, category=T, severity=T, created_at=D, resolved_at=D, csat=N,
                sla_breached=B)),
    Source("marketing_touches", ["touch_id"], ["org_id", "timestamp"], [],
           dict(touch_id=T, org_id=T, campaign=T, channel=T, timestamp=D, clicked=B, converted=B)),
    Source("nps_surveys", ["org_id", "survey_date"], [], [],
           dict(org_id=T, survey_date=D, nps_score=N, comment=T)),
]}
SCD_TABLES = ("customers_orgs", "users", "resources")


class Record:
    """One typed bronze record."""
    __slots__ = ("values", "rescued", "file", "line", "amounts")

    def __init__(self, values, rescued, file, line, amounts):
        self.values, self.rescued, self.file, self.line, self.amounts = values, rescued, file, line, amounts

    def same_content(self, other):
        return self.values == other.values and self.rescued == other.rescued


def canon(v):
    """A landed JSON value in a form that compares by content: the order of keys does not count.
    CHOICE: numbers in unknown fields compare by their text."""
    if isinstance(v, dict):
        return ("object", tuple(sorted((k, canon(x)) for k, x in v.items())))
    if isinstance(v, list):
        return ("list", tuple(canon(x) for x in v))
    return (type(v).__name__, v)


def missing(v):
    return v is None or (type(v) is str and v == "")


def type_record(source, raw, extras_null):
    """Types one landed record. Returns (error_type or None, values, rescued).

    The first error of the contract's list wins whatever column it is in; only then are nullable fields
    that do not parse set to null and rescued. CHOICE: an empty string is null in a nullable column too.
    """
    if any(missing(raw.get(k)) for k in source.key):
        return "missing_key", None, None
    if any(missing(raw.get(k)) for k in source.required):
        return "missing_required", None, None
    values, rescued, bad, out = {}, {}, False, False
    for name, parse in source.columns.items():
        v = raw.get(name)
        if missing(v):
            values[name] = None
            continue
        status, values[name] = parse(v)
        if status == RANGE:
            out = True
        elif status == BAD:
            if name in source.must:
                bad = True
            else:
                rescued[name] = canon(v)
    if bad:
        return "bad_type", None, None
    if out:
        return "out_of_range", None, None
    for name, v in raw.items():
        if name not in source.columns and (extras_null or not missing(v)):
            rescued[name] = canon(v)
    return None, values, rescued


def read_amounts(source, raw):
    """The money that can be read from a record, in quarantine too; unreadable or null counts 0."""
    out = {}
    for name in source.money:
        v = raw.get(name)
        status, n = p_decimal(v) if not missing(v) else (BAD, None)
        out[name] = n if status == OK else 0
    return out


# ------------------------------------------------------------------------------------------------
# Landing files
# ------------------------------------------------------------------------------------------------

class LandingFile:
    __slots__ = ("path", "rel", "mtime", "time")

    def __init__(self, root, rel):
        self.rel = rel
        self.path = os.path.join(root, *rel.split("/"))
        self.mtime = os.stat(self.path).st_mtime_ns // 1000
        self.time = time_of_name(rel.rsplit("/", 1)[-1])
        if self.time is None:
            self.time = self.mtime

    def read(self):
        """The file's bytes, decompressed, without a byte order mark."""
        with open(self.path, "rb") as f:
            data = f.read()
        if self.rel.endswith(".gz"):
            data = gzip.decompress(data)
        elif self.rel.endswith(".zst"):
            if zstandard:
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            elif shutil.which("zstd"):
                data = subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
            else:
                raise SystemExit(f"{self.rel}: no zstd decompressor")
        return data[3:] if data.startswith(b"\xef\xbb\xbf") else data


NAME_TIME = re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?:T(\d{2})(\d{2})(?!\d))?(?!\d)", re.ASCII)


def time_of_name(name):
    """CHOICE: the first valid date in the file's own name; a clock time that is none is not one."""
    for m in NAME_TIME.finditer(name):
        y, mo, d, h, mi = m.groups()
        day = day_number(y, mo, d)
        if day is not None:
            minutes = int(h) * 60 + int(mi) if h and int(h) < 24 and int(mi) < 60 else 0
            return (day * 1440 + minutes) * 60 * MICRO
    return None


def list_files(root, folder, prefix, suffix):
    """Landing files of one source, in path order."""
    where = os.path.join(root, folder) if folder else root
    out = []
    for name in os.listdir(where) if os.path.isdir(where) else []:
        if name.startswith((".", "_")) or name.endswith(".tmp"):
            continue
        if name.startswith(prefix) and name.endswith((suffix, suffix + ".gz", suffix + ".zst")) \
                and os.path.isfile(os.path.join(where, name)):
            out.append(LandingFile(root, f"{folder}/{name}" if folder else name))
    return sorted(out, key=lambda f: f.rel)


# --- JSON lines

class DuplicateKey(ValueError):
    pass


def pairs_once(pairs):
    d = dict(pairs)
    if len(d) != len(pairs):
        raise DuplicateKey
    return d


def no_constant(name):
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=pairs_once, parse_float=Num, parse_int=Num, parse_constant=no_constant)


def depth_of(v):
    deepest, stack = 0, [(v, 1)]
    while stack:
        v, d = stack.pop()
        if isinstance(v, (dict, list)):
            deepest = max(deepest, d)
            stack.extend((x, d + 1) for x in (v.values() if isinstance(v, dict) else v))
    return deepest


def parse_object(line):
    """The JSON object on a line, or None if the line is malformed."""
    if len(line) > MAX_LINE:
        return None
    try:
        text = line.decode("utf-8").strip(" \t\r\n")
        v, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if end != len(text) or not isinstance(v, dict):
        return None
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and depth_of(v) > MAX_DEPTH:
        return None
    if b"\\u" in line:                               # CHOICE: a lone surrogate is no text
        try:
            json.dumps(v, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return None
    return v


def json_records(file):
    """(source_line, object or None) of every landed line."""
    for number, line in enumerate(file.read().split(b"\n"), 1):
        if line.strip(BLANK):
            yield number, parse_object(line[:-1] if line.endswith(b"\r") else line)


# --- CSV

def csv_split(data):
    """(source_line, fields as bytes, or None if a quote does not end) of every CSV record.

    A quote opens a quoted field only as its first character; a quoted field may hold commas, doubled
    quotes and line ends. A record's line is the one it starts on. CHOICE: a quote that never ends
    makes one malformed record that reaches to the end of the file.
    """
    lines = data.split(b"\n")
    i = 0
    while i < len(lines):
        start, line = i, lines[i]
        i += 1
        if not line.strip(BLANK):
            continue
        if b'"' not in line:
            line = line[:-1] if line.endswith(b"\r") else line
            yield start + 1, line.split(b",") if len(line) <= MAX_LINE else None
            continue
        fields, pos, size, closed = [], 0, len(line), True
        while True:                                  # one field per turn
            field = b""
            if line[pos:pos + 1] == b'"':
                pos += 1
                closed = False
                while not closed:
                    end = line.find(b'"', pos)
                    if end < 0:                      # the field goes on on the next line
                        field += line[pos:]
                        if i == len(lines):
                            break
                        field += b"\n"
                        line, pos = lines[i], 0
                        size += len(line) + 1
                        i += 1
                    elif line[end + 1:end + 2] == b'"':
                        field += line[pos:end + 1]
                        pos = end + 2
                    else:
                        field += line[pos:end]
                        pos = end + 1
                        closed = True
                if not closed:
                    break
            comma = line.find(b",", pos)
            rest = line[pos:] if comma < 0 else line[pos:comma]
            if comma < 0 and rest.endswith(b"\r"):
                rest = rest[:-1]
            fields.append(field + rest)
            if comma < 0:
                break
            pos = comma + 1
        yield start + 1, fields if closed and size <= MAX_LINE else None


def decode_all(fields):
    try:
        return [f.decode("utf-8") for f in fields]
    except UnicodeDecodeError:
        return None


def csv_records(source, file):
    """(source_line, dict of columns or None if malformed) of every record below the header."""
    names = None
    header_seen = False
    for number, fields in csv_split(file.read()):
        texts = decode_all(fields) if fields is not None else None
        if not header_seen:
            header_seen = True
            if texts is not None and all(texts.count(c) == 1 for c in source.columns):
                names = texts
            continue
        if names is None or texts is None or len(texts) != len(names):
            yield number, None
        else:
            yield number, dict(zip(names, texts))


# ------------------------------------------------------------------------------------------------
# Bronze and the book-keeping: every landed record goes to exactly one bucket
# ------------------------------------------------------------------------------------------------

BUCKETS = ("accepted", "duplicates", "superseded", "quarantined")


class Book:
    def __init__(self):
        self.quarantine = []                         # (source, file, line, error)
        self.count = defaultdict(int)                # (source, bucket)
        self.money = defaultdict(int)                # (source, bucket, column)

    def put(self, source, bucket, amounts):
        self.count[source.name, bucket] += 1
        for column, n in amounts.items():
            self.money[source.name, bucket, column] += n

    def landed(self, source, amounts):
        self.put(source, "landed", amounts)

    def reject(self, source, file, line, error, amounts):
        self.quarantine.append((source.name, file.rel, line, error))
        self.put(source, "quarantined", amounts)

    def reject_record(self, source, rec, error):
        self.reject(source, rec.file, rec.line, error, rec.amounts)

    def balance(self):
        out = {}
        for s in [EVENTS, *BATCH.values()]:
            row = {b: self.count[s.name, b] for b in ("landed", *BUCKETS)}
            assert row["landed"] == sum(row[b] for b in BUCKETS), (s.name, row)
            row["money"] = {}
            for c in s.money:
                sums = {b: self.money[s.name, b, c] for b in ("landed", *BUCKETS)}
                assert sums["landed"] == sum(sums[b] for b in BUCKETS), (s.name, c, sums)
                row["money"][c] = {b: dec(n) for b, n in sums.items()}
            out[s.name] = row
        return out


def bronze(source, file, records, book):
    """Types the records of one file; quarantines what cannot be typed."""
    for line, raw in records:
        amounts = read_amounts(source, raw) if raw is not None else {}
        book.landed(source, amounts)
        if raw is None:
            book.reject(source, file, line, "malformed", amounts)
            continue
        error, values, rescued = type_record(source, raw, extras_null=source is EVENTS)
        if error is None and source is EVENTS and values["timestamp"] > file.mtime + DAY_US:
            error = "future_timestamp"
        if error:
            book.reject(source, file, line, error, amounts)
        else:
            yield Record(values, rescued, file, line, amounts)


# ------------------------------------------------------------------------------------------------
# Silver: batch sources
# ------------------------------------------------------------------------------------------------

def resolve_versions(source, files, book):
    """Upserts: key -> its versions, oldest first, as (file time, record); the last is current.

    Files by (file time, path). In one file the first line of a key stands for the file: a later one
    is a duplicate or a conflict with *that line*. Across files a record equal to the version before it is
    a duplicate; A, B, A are three versions.
    """
    versions = defaultdict(list)
    for file in sorted(files, key=lambda f: (f.time, f.rel)):
        in_file = {}
        for rec in bronze(source, file, csv_records(source, file), book):
            key = tuple(rec.values[k] for k in source.key)
            first = in_file.setdefault(key, rec)
            if first is not rec:
                if rec.same_content(first):
                    book.put(source, "duplicates", rec.amounts)
                else:
                    book.reject_record(source, rec, "duplicate_conflict")
            elif versions[key] and rec.same_content(versions[key][-1][1]):
                book.put(source, "duplicates", rec.amounts)
            else:
                versions[key].append((file.time, rec))
    return dict(versions)


def clean(source, values):
    """The silver form of a batch record (empty is null since bronze)."""
    row = dict(values)
    if source.name in ("customers_orgs", "nps_surveys") and row["nps_score"] is not None \
            and not -100 * MICRO <= row["nps_score"] <= 100 * MICRO:
        row["nps_score"] = None
    if source.name == "support_tickets" and row["csat"] is not None and not MICRO <= row["csat"] <= 5 * MICRO:
        row["csat"] = None
    if source.name == "users" and row["email"] is not None:
        row["email"] = row["email"].lower()
    if source.name == "resources":
        row["tags_json"] = parse_tags(row["tags_json"])
    if source.name == "billing_monthly":
        row["credits"] = row["credits"] or 0
        row["taxes"] = row["taxes"] or 0
    return row


def parse_tags(text):
    """tags_json -> list of text. CHOICE: null stays null; anything but a list of strings is null."""
    if text is None:
        return None
    try:
        tags = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tags if isinstance(tags, list) and all(type(t) is str for t in tags) else None


def convert(micros, rate):
    """amount x rate, a DECIMAL(18,6)."""
    return div_round(micros * rate, MICRO)


def build_batch(root, book):
    """table -> (silver rows by key, versions by key [(valid_from, clean row)])."""
    silver, history = {}, {}
    for source in BATCH.values():
        files = list_files(root, "", source.name, ".csv")
        rows, hist = {}, {}
        for key, versions in resolve_versions(source, files, book).items():
            for _, rec in versions[:-1]:
                book.put(source, "superseded", rec.amounts)
            rec = versions[-1][1]
            row = clean(source, rec.values)
            row["source_file"], row["source_line"] = rec.file.rel, rec.line
            hist[key] = [(t, clean(source, r.values)) for t, r in versions]
            if source.name == "billing_monthly":
                # CHOICE: the rule applies to the current version of an invoice, as the cost rule applies
                # to the event that won: an invoice whose latest version has no rate is quarantined,
                # and no older version takes its place.
                rate = MICRO if row["currency"] == "USD" else row["exchange_rate_to_usd"]
                if rate is None:
                    book.reject_record(source, rec, "missing_fx_rate")
                    continue
                row["fx_rate"] = rate
                row["cost_usd"] = convert(row["subtotal"], rate)
                row["is_credit_note"] = row["subtotal"] < 0
            book.put(source, "accepted", rec.amounts)
            rows[key] = row
        silver[source.name], history[source.name] = rows, hist
    return silver, history


def version_at(history, key, time):
    """The version current at a time, the first one for earlier times, None for an unknown key."""
    versions = history.get((key,)) if key is not None else None
    if not versions:
        return None
    i = bisect_right([t for t, _ in versions], time) - 1
    return versions[max(i, 0)][1]


# ------------------------------------------------------------------------------------------------
# Silver: usage events
# ------------------------------------------------------------------------------------------------

SERVICES = {"compute", "storage", "database", "networking", "analytics", "genai"}
REGIONS = {"us-east": "us-east-1", "us-west": "us-west-1", "eu-west": "eu-west-1", "eu-central": "eu-central-1",
           "ap-south": "ap-south-1", "ap-northeast": "ap-northeast-1", "sa-east": "sa-east-1"}
REGIONS.update({code: code for code in list(REGIONS.values())})
METRIC_UNIT = {"requests": "count", "cpu_hours": "hours", "storage_gb_hours": "gb_hours"}


def taxonomy(service):
    name = (service or "").strip().lower()
    return name if name in SERVICES else "unknown"


def conform_region(region):
    return REGIONS.get((region or "").strip().lower(), "unknown")


def build_events(root, book, history):
    # Dedup on typed bronze records, in (source_file, source_line) order: the first of an event_id
    # and event date wins, before any other rule looks at it.
    winners = {}
    for file in list_files(root, "usage_events_stream", "", ".jsonl"):
        for rec in bronze(EVENTS, file, json_records(file), book):
            key = (rec.values["event_id"], rec.values["timestamp"] // DAY_US)
            first = winners.setdefault(key, rec)
            if first is rec:
                continue
            if rec.same_content(first):
                book.put(EVENTS, "duplicates", rec.amounts)
            else:
                book.reject_record(EVENTS, rec, "duplicate_conflict")
    rows = []
    for (_, day), rec in sorted(winners.items()):
        v = rec.values
        if v["cost_usd_increment"] < -10_000:
            book.reject_record(EVENTS, rec, "cost_out_of_range")
            continue
        book.put(EVENTS, "accepted", rec.amounts)
        org = version_at(history["customers_orgs"], v["org_id"], v["timestamp"]) or {}
        user = version_at(history["users"], v["user_id"], v["timestamp"]) or {}
        res = version_at(history["resources"], v["resource_id"], v["timestamp"]) or {}
        impute = v["value"] is not None and v["unit"] is None
        # Schema reconciliation: what version 1 does not have is null. CHOICE: carbon or tokens that a row of
        # version 1 (or of none) carries all the same are kept: nothing is lost.
        version = 1 if v["schema_version"] is None else v["schema_version"]
        rows.append({
            "event_id": v["event_id"], "date": day, "timestamp": v["timestamp"], "org_id": v["org_id"],
            "resource_id": v["resource_id"], "user_id": v["user_id"],
            "service": taxonomy(v["service"]), "service_raw": v["service"],
            "region": conform_region(v["region"]), "region_raw": v["region"],
            "metric": v["metric"], "value": v["value"],
            "unit": METRIC_UNIT.get(v["metric"], "count") if impute else v["unit"], "unit_imputed": impute,
            "cost_usd_increment": v["cost_usd_increment"], "schema_version": version,
            "carbon_kg": v["carbon_kg"], "genai_tokens": v["genai_tokens"],
            "org_name": org.get("org_name"), "industry": org.get("industry"), "plan_tier": org.get("plan_tier"),
            "hq_region": org.get("hq_region"),
            "user_role": user.get("role"), "user_active": user.get("active"),
            "resource_service": res.get("service"), "resource_state": res.get("state"),
            "resource_tags": res.get("tags_json"),
            "source_file": rec.file.rel, "source_line": rec.line,
        })
    score(rows)
    return rows


# ------------------------------------------------------------------------------------------------
# Anomalies
# ------------------------------------------------------------------------------------------------

WINDOW_DAYS, MIN_N = 30, 50


class Baseline:
    """n, sum, sum of squares, median, MAD and p99 of a window, as exact integers."""

    def __init__(self, costs):
        xs = sorted(costs)
        n = len(xs)
        total = sum(xs)
        self.n, self.total = n, total
        # n * sum(x^2) - sum(x)^2 = n * (n - 1) * variance; 0 exactly when all are equal
        self.spread = n * sum(x * x for x in xs) - total * total
        self.median2 = xs[(n - 1) // 2] + xs[n // 2]                     # 2 x median
        devs = sorted(abs(2 * x - self.median2) for x in xs)             # 2 x |x - median|
        self.mad4 = devs[(n - 1) // 2] + devs[n // 2]                    # 4 x MAD
        low, rest = divmod(99 * (n - 1), 100)                            # p99 at 0.99 (n - 1)
        self.p99_100 = 100 * xs[low] + (rest * (xs[low + 1] - xs[low]) if rest else 0)
        with decimal.localcontext() as ctx:
            ctx.prec = 60
            # z = (n x - sum) / sqrt(n * spread / (n - 1))
            self.root = (decimal.Decimal(n * self.spread) / (n - 1)).sqrt()

    def score(self, x):
        """(z, mad_score, z flag, mad flag, p99 flag)"""
        z, z_flag = None, False
        above = self.n * x - self.total
        if self.spread:
            with decimal.localcontext() as ctx:
                ctx.prec = 60
                z = float(decimal.Decimal(above) / self.root)
            # z > 3, squared
            z_flag = above > 0 and above * above * (self.n - 1) > 9 * self.n * self.spread
        mad, mad_flag = None, False
        if self.mad4:
            num, den = 6745 * 2 * (2 * x - self.median2), 10_000 * self.mad4
            mad = num / den                                              # correctly rounded
            mad_flag = 2 * num > 7 * den
        return z, mad, z_flag, mad_flag, 200 * x > 3 * self.p99_100


def score(rows):
    """Scores every accepted event against the 30 days before its date."""
    own = defaultdict(lambda: defaultdict(list))      # (org, service, metric) -> day -> costs
    shared = defaultdict(lambda: defaultdict(list))   # (service, metric) -> day -> costs
    for r in rows:
        own[r["org_id"], r["service"], r["metric"]][r["date"]].append(r["cost_usd_increment"])
        shared[r["service"], r["metric"]][r["date"]].append(r["cost_usd_increment"])
    cache = {}

    def baseline(days, key, day):
        if (key, day) not in cache:
            costs = [c for d in range(day - WINDOW_DAYS, day) for c in days.get(d, ())]
            cache[key, day] = Baseline(costs) if len(costs) >= MIN_N else None
        return cache[key, day]

    for r in rows:
        full = (r["org_id"], r["service"], r["metric"])
        base = baseline(own[full], full, r["date"]) or baseline(shared[full[1:]], full[1:], r["date"])
        z, mad, zf, mf, pf = base.score(r["cost_usd_increment"]) if base else (None, None, False, False, False)
        r["anomaly_score"], r["mad_score"] = z, mad
        r["is_anomaly_zscore"], r["is_anomaly_mad"], r["is_anomaly_p99"] = zf, mf, pf
        r["is_anomaly"] = zf + mf + pf >= 2


# ------------------------------------------------------------------------------------------------
# Gold
# ------------------------------------------------------------------------------------------------

def group(rows, *columns):
    out = defaultdict(list)
    for r in rows:
        out[tuple(r[c] for c in columns)].append(r)
    return sorted(out.items())


def total(rows, column):
    n = None
    for r in rows:
        n = add_null(n, r[column])
    return n


def metric_total(rows, metric):
    """Sum of value where metric = ..., 0 where there is none."""
    return total([r for r in rows if r["metric"] == metric], "value") or 0


def requests_of(rows):
    return div_round(metric_total(rows, "requests"), MICRO)


def finops_daily_usage(events):
    for (org, day, service), rows in group(events, "org_id", "date", "service"):
        cost, requests = total(rows, "cost_usd_increment"), requests_of(rows)
        z = None
        for r in rows:
            z = max_null(z, r["anomaly_score"])
        yield {
            "org_id": org, "usage_date": fmt_date(day), "service": service,
            "total_cost_usd": dec(cost), "total_requests": requests,
            "total_cpu_hours": dec(metric_total(rows, "cpu_hours")),
            "total_storage_gb_hours": dec(metric_total(rows, "storage_gb_hours")),
            "total_carbon_kg": dec(total(rows, "carbon_kg")), "total_genai_tokens": total(rows, "genai_tokens"),
            "event_count": len(rows),
            "avg_cost_per_request": dec(div_round(cost, requests)) if requests else None,
            "is_anomaly": any(r["is_anomaly"] for r in rows), "anomaly_score": z,
        }


def org_service_cost_summary(events):
    if not events:
        return
    last = max(r["date"] for r in events)
    daily = defaultdict(lambda: defaultdict(int))     # (org, service) -> day -> cost
    for r in events:
        daily[r["org_id"], r["service"]][r["date"]] += r["cost_usd_increment"]
    partitions = defaultdict(list)                    # (org, summary date) -> [(cost_14d, service, ...)]
    for (org, service), days in daily.items():
        # an event keeps its org and service in the summary for 14 days, its own included; no summary
        # date lies before the first event, and none after the last
        for d in {e + i for e in days for i in range(14) if e + i <= last}:
            c1, c7, c14 = (sum(days.get(d - i, 0) for i in range(n)) for n in (1, 7, 14))
            partitions[org, d].append((-c14, service, c1, c7))
    for (org, d), entries in sorted(partitions.items()):
        ranked = [(service, c1, c7, -neg, rank)
                  for rank, (neg, service, c1, c7) in enumerate(sorted(entries), 1)]
        for service, c1, c7, c14, rank in sorted(ranked):
            yield {"org_id": org, "summary_date": fmt_date(d), "service": service,
                   "cost_1d": dec(c1), "cost_7d": dec(c7), "cost_14d": dec(c14), "rank_14d": rank}


def ticket_measures(rows):
    n = len(rows)
    breaches = sum(r["sla_breached"] is True for r in rows)
    csat = [r["csat"] for r in rows if r["csat"] is not None]
    days = [r["resolved_at"] - r["created_at"] for r in rows if r["resolved_at"] is not None]
    return {
        "total_tickets": n, "open_tickets": n - len(days), "sla_breach_count": breaches,
        "sla_breach_rate": dec(div_round(breaches * MICRO, n)),
        "avg_csat": dec(div_round(sum(csat), len(csat))) if csat else None,
        "avg_resolution_days": dec(div_round(sum(days) * MICRO, len(days))) if days else None,
    }


def with_severity(tickets):
    """CHOICE: a ticket without a severity counts under 'unknown': a key cannot be null."""
    return [{**r, "severity": r["severity"] or "unknown"} for r in tickets]


def support_tickets_summary(tickets):
    for (org, day, severity), rows in group(with_severity(tickets), "org_id", "created_at", "severity"):
        yield {"org_id": org, "ticket_date": fmt_date(day), "severity": severity, **ticket_measures(rows)}


def tickets_by_severity_daily(tickets):
    for (severity, day), rows in group(with_severity(tickets), "severity", "created_at"):
        yield {"severity": severity, "ticket_date": fmt_date(day), **ticket_measures(rows)}


def revenue_monthly(invoices):
    """Each invoice's amounts are converted (and rounded) on their own, then summed."""
    rows = [{**r, "billing_month": fmt_date(r["month"])[:7]} for r in invoices]
    for (org, month), rows in group(rows, "org_id", "billing_month"):
        gross, credits, taxes = (sum(convert(r[c], r["fx_rate"]) for r in rows)
                                 for c in ("subtotal", "credits", "taxes"))
        one = len({(r["currency"], r["fx_rate"]) for r in rows}) == 1
        yield {
            "org_id": org, "billing_month": month,
            "gross_revenue_usd": dec(gross), "credits_applied_usd": dec(credits), "taxes_usd": dec(taxes),
            "net_revenue_usd": dec(gross - credits), "total_invoiced_usd": dec(gross - credits + taxes),
            "invoice_count": len(rows),
            "currency_original": rows[0]["currency"] if one else None,
            "fx_rate": dec(rows[0]["fx_rate"]) if one else None,
        }


def genai_usage_daily(events):
    for (org, day), rows in group([r for r in events if r["service"] == "genai"], "org_id", "date"):
        tokens, requests = total(rows, "genai_tokens"), requests_of(rows)
        yield {"org_id": org, "usage_date": fmt_date(day), "total_tokens": tokens, "total_requests": requests,
               "total_cost_usd": dec(total(rows, "cost_usd_increment")),
               "avg_tokens_per_request": div_round(tokens, requests) if tokens and requests else None}


def cost_anomaly(events):
    """CHOICE: all measures, the three method counts too, are over the group's anomalous events."""
    for (org, day, service), rows in group([r for r in events if r["is_anomaly"]], "org_id", "date", "service"):
        z = None
        for r in rows:
            z = max_null(z, r["anomaly_score"])
        yield {
            "org_id": org, "usage_date": fmt_date(day), "service": service,
            "anomaly_count": len(rows), "anomalous_cost_usd": dec(total(rows, "cost_usd_increment")),
            "max_cost_usd": dec(max(r["cost_usd_increment"] for r in rows)),
            "zscore_count": sum(r["is_anomaly_zscore"] for r in rows),
            "mad_count": sum(r["is_anomaly_mad"] for r in rows),
            "p99_count": sum(r["is_anomaly_p99"] for r in rows),
            "max_anomaly_score": z, "events": sorted(r["event_id"] for r in rows),
        }


def carbon_daily(events):
    """One row per org and day with an accepted event; null where none of its events has carbon."""
    for (org, day), rows in group(events, "org_id", "date"):
        yield {"org_id": org, "usage_date": fmt_date(day), "total_carbon_kg": dec(total(rows, "carbon_kg"))}


def counts(values):
    out = defaultdict(int)
    for v in values:
        out[v] += 1
    return dict(sorted(out.items()))


def org_profile(silver, events):
    """CHOICE: clicks and conversions hold only channels that have one."""
    def by_org(table):
        out = defaultdict(list)
        for r in silver[table].values():
            out[r["org_id"]].append(r)
        return out

    users, resources, touches, surveys = map(by_org, ("users", "resources", "marketing_touches", "nps_surveys"))
    cost = defaultdict(lambda: defaultdict(int))
    for r in events:
        cost[r["org_id"]][r["service"]] += r["cost_usd_increment"]
    for (org,), o in sorted(silver["customers_orgs"].items()):
        scored = max(((s["survey_date"], s["nps_score"]) for s in surveys[org] if s["nps_score"] is not None),
                     default=(None, None))

        def channels(flag=None):
            return counts(t["channel"] or "unknown" for t in touches[org] if flag is None or t[flag])

        yield {
            "org_id": org, "org_name": o["org_name"], "industry": o["industry"], "hq_region": o["hq_region"],
            "plan_tier": o["plan_tier"], "is_enterprise": o["is_enterprise"],
            "lifecycle_stage": o["lifecycle_stage"], "signup_date": fmt_date(o["signup_date"]),
            "users_by_role": counts(u["role"] or "unknown" for u in users[org]),
            "active_users": sum(u["active"] is True for u in users[org]),
            "resources_by_service": counts(taxonomy(r["service"]) for r in resources[org]),
            "tags": sorted({t for r in resources[org] for t in r["tags_json"] or ()}),
            "last_nps_date": fmt_date(scored[0]), "last_nps_score": dec(scored[1]),
            "touches_by_channel": channels(), "clicks_by_channel": channels("clicked"),
            "conversions_by_channel": channels("converted"),
            "lifetime_cost_usd": dec(sum(cost[org].values())),
            "cost_by_service": {s: dec(c) for s, c in sorted(cost[org].items())},
        }


# ------------------------------------------------------------------------------------------------
# Output
# ------------------------------------------------------------------------------------------------

EVENT_COLUMNS = """event_id date timestamp org_id resource_id user_id service service_raw region region_raw metric value unit
    unit_imputed cost_usd_increment schema_version carbon_kg genai_tokens org_name industry plan_tier hq_region user_role
    user_active resource_service resource_state resource_tags anomaly_score mad_score is_anomaly_zscore is_anomaly_mad
    is_anomaly_p99 is_anomaly source_file source_line""".split()
EVENT_FORMAT = {"date": fmt_date, "timestamp": fmt_ts, "value": dec, "cost_usd_increment": dec, "carbon_kg": dec}


def silver_row(source, row, extra=()):
    out = {}
    for name, parse in source.columns.items():
        v = row[name]
        out[name] = fmt_date(v) if parse is p_date else dec(v) if parse is p_decimal else v
    for name in extra:
        out[name] = dec(row[name]) if name in ("fx_rate", "cost_usd") else row[name]
    return out


def history_rows(source, history):
    """valid_from is the time of the file that brought the version, valid_to that of the next."""
    for _, versions in sorted(history.items()):
        ends = [t for t, _ in versions[1:]] + [None]
        for (start, row), end in zip(versions, ends):
            yield {**silver_row(source, row), "valid_from": fmt_ts(start), "valid_to": fmt_ts(end),
                   "is_current": end is None}


def write(out_dir, name, rows):
    n = 0
    with open(os.path.join(out_dir, name + ".jsonl"), "w", encoding="utf-8", newline="\n") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n")
            n += 1
    return n


def run(landing, out_dir):
    book = Book()
    silver, history = build_batch(landing, book)
    events = build_events(landing, book, history)
    os.makedirs(out_dir, exist_ok=True)
    sizes = {}

    def emit(name, rows):
        sizes[name] = write(out_dir, name, rows)

    emit("silver.usage_events",
         ({c: EVENT_FORMAT[c](r[c]) if c in EVENT_FORMAT else r[c] for c in EVENT_COLUMNS} for r in events))
    for name, source in BATCH.items():
        extra = ["fx_rate", "cost_usd", "is_credit_note"] if name == "billing_monthly" else []
        emit(f"silver.{name}", (silver_row(source, r, [*extra, "source_file", "source_line"])
                                for _, r in sorted(silver[name].items())))
    for name in SCD_TABLES:
        emit(f"silver.{name}_history", history_rows(BATCH[name], history[name]))
    tickets, invoices = list(silver["support_tickets"].values()), list(silver["billing_monthly"].values())
    emit("gold.finops_daily_usage", finops_daily_usage(events))
    emit("gold.org_service_cost_summary", org_service_cost_summary(events))
    emit("gold.support_tickets_summary", support_tickets_summary(tickets))
    emit("gold.revenue_monthly", revenue_monthly(invoices))
    emit("gold.genai_usage_daily", genai_usage_daily(events))
    emit("gold.cost_anomaly", cost_anomaly(events))
    emit("gold.carbon_daily", carbon_daily(events))
    emit("gold.org_profile", org_profile(silver, events))
    emit("gold.tickets_by_severity_daily", tickets_by_severity_daily(tickets))
    emit("quarantine", ({"source": s, "source_file": f, "source_line": n, "error_type": e}
                        for s, f, n, e in sorted(book.quarantine)))
    balance = book.balance()
    with open(os.path.join(out_dir, "balance.json"), "w", encoding="utf-8", newline="\n") as f:
        json.dump(balance, f, indent=1)
        f.write("\n")
    return sizes, balance


def main(argv):
    if len(argv) != 3:
        raise SystemExit(__doc__.split("\n\n")[1].strip())
    sizes, balance = run(argv[1], argv[2])
    for name, n in sizes.items():
        print(f"{n:8d}  {name}")
    for name, b in balance.items():
        print(name, {k: v for k, v in b.items() if k != "money"},
              *(f"{c}: accepted {m['accepted']} of {m['landed']}" for c, m in b["money"].items()))


if __name__ == "__main__":
    main(sys.argv)
