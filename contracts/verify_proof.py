"""Verify a proof of the audit log with nothing but Python: `python verify_proof.py PROOF.json --public-key HEX`.

Exit code 0: the record was in the log when its head was signed, by the key given or one that it handed the log on to.
Exit code 1: it is not proven, and the last line says why. Only the standard library is used, and nothing of the plane; the
formats are those of `audit_proof_v0.schema.json`: RFC 6962 (hashes), RFC 8032 (Ed25519), RFC 8785 (canonical JSON, here of
texts and integers alone).
"""

import argparse
import hashlib
import json
import sys

MOST_BYTES = 32_768
MOST_INTEGER = 2**53 - 1
PROOF = {"kind", "contract_version", "leaf", "leaf_index", "path", "head", "key_chain", "record"}
EVIDENCE = {"snapshot", "origin_event", "events"}
LEAF = {"kind", "contract_version", "leaf_kind", "subject", "record_digest", "reference"}
HEAD = {"kind", "contract_version", "log_id", "tree_size", "root_hash", "at_utc", "key_id", "signature", "co_signatures"}
HEAD_OPTIONS = {"covers_until_utc", "previous_head_digest", "next_key_id"}
CO_SIGNATURE = {"kind", "contract_version", "tree_size", "head_digest", "key_id", "signature"}
EVENT = {"stream_name", "partition_id", "offset", "event_id", "event_type", "ts_utc", "payload_hash"}
# member of the decision record, and the same in what the snapshot's hash is over
SAME_IN_SNAPSHOT = ("context_pins", "as_of_time_utc", "feature_keys", "feature_groups", "run_config_digest", "input_basis")


class Fault(Exception):
    """Why it is not proven."""


def fail(step, words):
    """Stop at a step."""
    raise Fault(f"{step}: {words}")


# ------------------------------------------------------------------------------------------ JSON as RFC 8785 writes it


def read_json(data, step):
    """Strict JSON of texts, integers, booleans, null, lists and objects; a member twice, or a fraction, is refused."""

    def unique(pairs):
        members = dict(pairs)
        if len(members) != len(pairs):
            fail(step, "a member stands there twice")
        return members

    def refused(text):
        return fail(step, f"{text} is no integer")

    try:
        return json.loads(data, object_pairs_hook=unique, parse_float=refused, parse_constant=refused)
    except (ValueError, RecursionError) as error:
        return fail(step, f"it is no JSON: {error}")


def canonical(value, step):
    """The RFC 8785 bytes of a value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value).encode()
    if isinstance(value, int):
        if abs(value) > MOST_INTEGER:
            fail(step, f"{value} is beyond 2^53-1")
        return str(value).encode()
    if isinstance(value, str):
        try:
            return json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return fail(step, "a text holds half of a character")
    if isinstance(value, list):
        return b"[" + b",".join(canonical(item, step) for item in value) + b"]"
    names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
    members = (canonical(name, step) + b":" + canonical(value[name], step) for name in names)
    return b"{" + b",".join(members) + b"}"


def sha256(data):
    """32 bytes."""
    return hashlib.sha256(data).digest()


def demand_object(value, names, options, step):
    """Demand an object of exactly these members, those of `options` left out or not."""
    if not isinstance(value, dict):
        fail(step, "it is no object")
    for name in names - value.keys():
        fail(step, f"it has no {name}")
    for name in value.keys() - names - options:
        fail(step, f"it has a member {name} that nobody knows")
    return value


def from_hex(text, length, step, name):
    """Bytes of lower-case hex digits."""
    if not isinstance(text, str) or len(text) != 2 * length or text.strip("0123456789abcdef"):
        fail(step, f"{name} is not {2 * length} hex digits")
    return bytes.fromhex(text)


def whole_number(value, step, name):
    """An integer from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_INTEGER:
        fail(step, f"{name} is no number")
    return value


# ------------------------------------------------------------------------------------------ Ed25519, RFC 8032, section 5.1

FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE = -121665 * pow(121666, FIELD - 2, FIELD) % FIELD
ROOT_OF_MINUS_ONE = pow(2, (FIELD - 1) // 4, FIELD)


def recover_x(y, sign):
    """The x of a point; None: there is none."""
    if y >= FIELD:
        return None
    square = (y * y - 1) * pow(CURVE * y * y + 1, FIELD - 2, FIELD) % FIELD
    if square == 0:
        return None if sign else 0
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if (x * x - square) % FIELD:
        x = x * ROOT_OF_MINUS_ONE % FIELD
    if (x * x - square) % FIELD:
        return None
    return FIELD - x if x & 1 != sign else x


def add(p, q):
    """The sum of two points in extended coordinates (X, Y, Z, T)."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % FIELD
    b = (p[1] + p[0]) * (q[1] + q[0]) % FIELD
    c = 2 * p[3] * q[3] * CURVE % FIELD
    d = 2 * p[2] * q[2] % FIELD
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % FIELD, g * h % FIELD, f * g % FIELD, e * h % FIELD


def multiply(scalar, point):
    """A multiple of a point."""
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def decode_point(data):
    """The point of 32 bytes; None: there is none."""
    number = int.from_bytes(data, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % FIELD)


def encode_point(point):
    """The 32 bytes of a point."""
    inverse = pow(point[2], FIELD - 2, FIELD)
    x, y = point[0] * inverse % FIELD, point[1] * inverse % FIELD
    return (y | (x & 1) << 255).to_bytes(32, "little")


BASE_Y = 4 * pow(5, FIELD - 2, FIELD) % FIELD
BASE_X = recover_x(BASE_Y, 0)
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % FIELD)


def is_signed(public_key, signature, message):
    """Whether the signature (64 bytes) over the message is of that key (32 bytes)."""
    point, s = decode_point(public_key), int.from_bytes(signature[32:], "little")
    if point is None or s >= ORDER or decode_point(signature[:32]) is None:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    minus = (FIELD - point[0], point[1], 1, FIELD - point[3])
    return encode_point(add(multiply(s, BASE), multiply(k, minus))) == signature[:32]


# ------------------------------------------------------------------------------------------ the tree, RFC 9162, section 2.1.3.2


def root_of(leaf, index, size, path, step):
    """The root that a path leads to from a leaf."""
    if index >= size:
        fail(step, f"a tree of {size} leaves has no leaf {index}")
    place, last, above = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            fail(step, "the path is too long")
        if place & 1 or place == last:
            above = sha256(b"\1" + sibling + above)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            above = sha256(b"\1" + above + sibling)
        place, last = place >> 1, last >> 1
    if last:
        fail(step, "the path is too short")
    return above


# ------------------------------------------------------------------------------------------ the steps


def signed_bytes(head, step):
    """The bytes that a head's signatures are over."""
    return canonical({name: value for name, value in head.items() if name not in ("signature", "co_signatures")}, step)


def check_head(value, step):
    """The shape of a head."""
    head = demand_object(value, HEAD, HEAD_OPTIONS, step)
    if (head["kind"], head["contract_version"]) != ("audit_tree_head", "v0"):
        fail(step, "it is no audit_tree_head v0")
    whole_number(head["tree_size"], step, "tree_size")
    for name in {"log_id", "root_hash", "key_id", "previous_head_digest", "next_key_id"} & head.keys():
        from_hex(head[name], 32, step, name)
    if not isinstance(head["co_signatures"], list):
        fail(step, "co_signatures is no list")
    return head


def demand_signature(head, step):
    """Demand that a head is signed by the key that it names."""
    key, signature = from_hex(head["key_id"], 32, step, "key_id"), from_hex(head["signature"], 64, step, "signature")
    if not is_signed(key, signature, signed_bytes(head, step)):
        fail(step, f"the signature is not that of key {head['key_id']}")


def check_keys(proof, trusted):
    """From the key that is trusted to the one that signed the head."""
    step, head, key = "key chain", proof["head"], trusted
    if not isinstance(proof["key_chain"], list):
        fail(step, "it is no list")
    chain = [check_head(link, step) for link in proof["key_chain"]]
    first = chain[0] if chain else head
    if sha256(bytes.fromhex(first["key_id"])).hex() != head["log_id"]:
        fail(step, "the log is not that of the key that signed first")
    size = 0
    for link in chain:
        if link["log_id"] != head["log_id"] or "next_key_id" not in link or not size < link["tree_size"] < head["tree_size"]:
            fail(step, "a head does not belong in it")
        size = link["tree_size"]
        if link["key_id"] == key:
            demand_signature(link, step)
            key = link["next_key_id"]
    if head["key_id"] != key:
        fail(step, f"key {head['key_id']} signed the head, and the key that you trust does not lead to it")
    return f"log {head['log_id']}, {len(chain)} rotations, signed by key {key}"


def check_signatures(proof):
    """The head's own signature, and those of others."""
    step, head = "head", proof["head"]
    demand_signature(head, step)
    digest = sha256(signed_bytes(head, step)).hex()
    for value in head["co_signatures"]:
        other = demand_object(value, CO_SIGNATURE, set(), "co-signature")
        key = from_hex(other["key_id"], 32, "co-signature", "key_id")
        signature = from_hex(other["signature"], 64, "co-signature", "signature")
        is_of_head = (other["tree_size"], other["head_digest"]) == (head["tree_size"], digest)
        if not is_of_head or not is_signed(key, signature, signed_bytes(head, step)):
            fail("co-signature", f"it is not that of key {other['key_id']} over this head")
    others = ", ".join(other["key_id"] for other in head["co_signatures"])
    return f"{head['tree_size']} leaves at {head['at_utc']}" + (f", signed also by {others}" if others else "")


def check_leaf(proof):
    """From the leaf to the root of the head."""
    step, head = "inclusion", proof["head"]
    leaf = demand_object(proof["leaf"], LEAF, set(), step)
    if (leaf["kind"], leaf["contract_version"]) != ("audit_leaf", "v0"):
        fail(step, "it is no audit_leaf v0")
    index = whole_number(proof["leaf_index"], step, "leaf_index")
    if not isinstance(proof["path"], list):
        fail(step, "the path is no list")
    path = [from_hex(sibling, 32, step, "a hash of the path") for sibling in proof["path"]]
    root = root_of(sha256(b"\0" + canonical(leaf, step)), index, head["tree_size"], path, step)
    if root.hex() != head["root_hash"]:
        fail(step, "the path leads to another root than the signed one")
    return f"leaf {index} of {head['tree_size']}: {leaf['leaf_kind']} {leaf['subject']}"


def check_record(proof):
    """The record that the leaf names."""
    step, text = "record", proof["record"]
    if not isinstance(text, str):
        fail(step, "it is no text")
    digest = sha256(text.encode("utf-8", "surrogatepass")).hex()
    if digest != proof["leaf"]["record_digest"]:
        fail(step, "its SHA-256 is not the one that the leaf names")
    return f"SHA-256 {digest}"


def check_decision(record, proof):
    """A decision's own id, and that the leaf is its."""
    step = "decision"
    if not isinstance(record, dict) or record.get("kind") != "df_decision_record":
        fail(step, "the record is no decision")
    names = {"context_pins", "event_id", "event_type", "event_position", "contract_version"}
    if not names < record.keys():
        fail(step, "it names no event")
    if record["contract_version"] == "v0":  # run and event
        named = {name: record[name] for name in names - {"event_position"}}
        text = canonical(named, step)
    else:  # event, bundle and place
        at, bundle = record["event_position"], record.get("bundle")
        place = "/".join((at["stream_name"], at.get("incarnation") or "", at["partition_id"], str(at["offset"])))
        text = f"{record['event_id']}|{bundle['bundle']['digest'] if bundle else 'none'}|{place}".encode()
    if not record.get("decision_id") == sha256(text).hex() == proof["leaf"]["subject"]:
        fail(step, "its id is not that of its event and of what decided")
    return f"{record.get('outcome')} on {record['event_type']} {record['event_id']}"


def check_snapshot(record, proof):
    """The bytes that the decision was made from."""
    step = "snapshot"
    snapshot = demand_object(proof["snapshot"], {"feature_snapshot_hash", "hashed"}, set(), step)
    text, name = snapshot["hashed"], snapshot["feature_snapshot_hash"]
    if not isinstance(text, str) or sha256(text.encode("utf-8", "surrogatepass")).hex() != name:
        fail(step, "its text does not have its hash")
    if name != record.get("feature_snapshot_hash"):
        fail(step, "it is not the one that the decision names")
    hashed = read_json(text, step)
    pairs = [(member, hashed.get(member), record.get(member)) for member in SAME_IN_SNAPSHOT]
    pairs.append(("registry_digest", hashed.get("registry_digest"), record.get("feature_definition_set", {}).get("digest")))
    pairs.append(("graph_version", hashed.get("graph_version"), record.get("graph_version")))
    for member, here, there in pairs:
        if here != there:
            fail(step, f"it has another {member} than the decision")
    return f"{name}, as of {hashed['as_of_time_utc']}"


def check_event(value, step):
    """An event, and its payload hash where its text is there."""
    event = demand_object(value, EVENT, {"envelope"}, step)
    if "envelope" not in event:
        return event
    text = event["envelope"]
    if not isinstance(text, str) or sha256(text.encode("utf-8", "surrogatepass")).hex() != event["payload_hash"]:
        fail(step, "its text does not have its payload hash")
    told = json.loads(text)  # its payload may hold fractions, so it is hashed as it stands
    if (told.get("event_type"), told.get("ts_utc")) != (event["event_type"], event["ts_utc"]):
        fail(step, "its text is of another type or time")
    return event


def check_origin(record, proof):
    """The event that was decided on."""
    step = "origin event"
    event = check_event(proof["origin_event"], step)
    at = record.get("event_position", {})
    for name in ("stream_name", "partition_id", "offset"):
        if event[name] != at.get(name):
            fail(step, "it stands at another position than the decision says")
    if (event["event_type"], event["event_id"]) != (record["event_type"], record["event_id"]):
        fail(step, "it is another event than the decision is on")
    how = "computed from its text" if "envelope" in event else "as stated: its text is not in the proof"
    return f"{event['partition_id']}:{event['offset']}, payload hash {event['payload_hash']} ({how})"


def check_events(record, proof):
    """The events inside the values stand in front of the basis of the snapshot."""
    step = "events"
    basis = record.get("input_basis", {})
    tokens = {one["partition_id"]: one for one in basis.get("partitions", [])}
    for value in proof["events"]:
        event = check_event(value, step)
        token = tokens.get(event["partition_id"])
        if token is None or event["stream_name"] != basis.get("stream_name"):
            fail(step, f"{event['event_id']} is of a partition that the basis does not have")
        end = int(token["offset"] or 0) + (token["offset_kind"] == "after_sequence_number")
        if int(event["offset"]) >= end:
            fail(step, f"{event['event_id']} at {event['partition_id']}:{event['offset']} is not in the basis")
    return f"{len(proof['events'])} in front of the basis, positions and payload hashes as stated"


def verify(data, trusted, tell):
    """Check everything; `tell` is called with each step and its words. `trusted`: a public key, 64 hex digits.

    Raises:
        Fault: it is not proven.
    """
    if len(data) > MOST_BYTES:
        fail("file", f"{len(data)} bytes; a proof has at most {MOST_BYTES}")
    proof = demand_object(read_json(data, "file"), PROOF, EVIDENCE, "file")
    if (proof["kind"], proof["contract_version"]) != ("audit_proof", "v0"):
        fail("file", "it is no audit_proof v0")
    check_head(proof["head"], "head")
    tell("key chain", check_keys(proof, trusted))
    tell("head", check_signatures(proof))
    tell("inclusion", check_leaf(proof))
    tell("record", check_record(proof))
    if proof["leaf"]["leaf_kind"] == "decision":
        record = read_json(proof["record"], "decision")
        tell("decision", check_decision(record, proof))
        for name, step, check in (
            ("snapshot", "snapshot", check_snapshot),
            ("origin_event", "origin event", check_origin),
            ("events", "events", check_events),
        ):
            words = "not in the proof, so nothing is said of it"
            if name != "origin_event" and "feature_snapshot_hash" not in record:
                words = "none: it was decided without a vector"
            tell(step, check(record, proof) if proof.get(name) else words)


def main():
    """The program."""
    parser = argparse.ArgumentParser(description="Verify a proof of the audit log.")
    parser.add_argument("proof", help="the file that `ofp audit prove ID --out FILE` wrote")
    parser.add_argument("--public-key", required=True, help="64 hex digits: a key of the log that you trust")
    arguments = parser.parse_args()
    try:
        from_hex(arguments.public_key, 32, "--public-key", "the key")
        with open(arguments.proof, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        verify(data, arguments.public_key, lambda step, words: print(f"ok     {step}: {words}"))
    except OSError as error:
        print(f"FAULT  file: {error}")
        return 1
    except Fault as fault:
        print(f"FAULT  {fault}")
        return 1
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        print(f"FAULT  file: it is not formed as a proof ({type(error).__name__}: {error})")
        return 1
    print("PROVEN")
    return 0


if __name__ == "__main__":
    sys.exit(main())
