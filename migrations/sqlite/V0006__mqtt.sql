-- MQTT: which node speaks to the organisation's broker, and operators who command over it.

-- Something that one node at a time does. Whoever holds it renews it; after `until`, anybody may take it.
CREATE TABLE leases (
    name   TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Public keys that people sign commands with, as for SSH.
CREATE TABLE operator_keys (
    jkt        BLOB PRIMARY KEY CHECK (length(jkt) = 32), -- RFC 7638; a key is one person's, ever
    operator   INTEGER NOT NULL REFERENCES operators (id),
    name       TEXT NOT NULL,
    jwk        TEXT NOT NULL,
    added_at   INTEGER NOT NULL,
    added_by   TEXT NOT NULL,
    used_at    INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX operator_keys_by_operator ON operator_keys (operator);

-- Each command counts once, until it expires by itself.
CREATE TABLE used_commands (
    hash       BLOB PRIMARY KEY CHECK (length(hash) = 32),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_commands_by_expiry ON used_commands (expires_at);
