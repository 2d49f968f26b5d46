-- Everything that Pairgate knows. Instants are milliseconds since 1970; hashes and thumbprints are 32 raw bytes; states are the words of
-- src/model/. Nothing here is worth anything to a thief: codes, tokens and session ids are hashes, private keys are sealed.

CREATE TABLE sites (
    id       TEXT PRIMARY KEY,
    name     TEXT NOT NULL,
    networks TEXT NOT NULL DEFAULT ''          -- CIDR, separated by spaces
) STRICT, WITHOUT ROWID;
INSERT INTO sites (id, name) VALUES ('default', 'Main site');

CREATE TABLE devices (
    row             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,      -- the OAuth client_id; rows are never deleted, so ids are never reused
    state           TEXT NOT NULL CHECK (state IN ('registered', 'active', 'suspended', 'retired')),
    kind            TEXT NOT NULL,
    site            TEXT NOT NULL REFERENCES sites (id),
    name            TEXT NOT NULL,
    serial          TEXT NOT NULL,
    asset_tag       TEXT NOT NULL,
    maker           TEXT NOT NULL,
    model           TEXT NOT NULL,
    room            TEXT NOT NULL,
    note            TEXT NOT NULL,
    registered_at   INTEGER NOT NULL,
    jkt             BLOB CHECK (length(jkt) = 32),
    paired_at       INTEGER,
    paired_by       TEXT,
    seen_at         INTEGER,
    codes_since     INTEGER NOT NULL DEFAULT 0, -- start of the hour in which codes_count were asked for
    codes_count     INTEGER NOT NULL DEFAULT 0,
    pending_grant   INTEGER                    -- its one open sign-in
) STRICT;

-- Every key that was ever confirmed. A key belongs to one device, for ever, also after it was replaced or retired.
CREATE TABLE device_keys (
    jkt        BLOB PRIMARY KEY CHECK (length(jkt) = 32),
    device     INTEGER NOT NULL REFERENCES devices (row),
    jwk        TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('current', 'replaced', 'retired')),
    added_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX device_keys_by_device ON device_keys (device);

CREATE TABLE pairing_windows (
    subject   TEXT PRIMARY KEY,                -- 'device:<id>' or 'site:<id>'
    closes_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pairings (
    id            TEXT PRIMARY KEY,
    device        INTEGER NOT NULL REFERENCES devices (row),
    state         TEXT NOT NULL CHECK (state IN ('requested', 'revealed', 'confirmed', 'refused')),
    jkt           BLOB NOT NULL CHECK (length(jkt) = 32),
    jwk           TEXT NOT NULL,
    serial        TEXT NOT NULL,
    model         TEXT NOT NULL,
    firmware      TEXT NOT NULL,
    commitment    BLOB NOT NULL CHECK (length(commitment) = 32),
    broker_nonce  BLOB NOT NULL CHECK (length(broker_nonce) = 32),
    device_nonce  BLOB CHECK (length(device_nonce) = 32),
    request_hash  BLOB NOT NULL UNIQUE,        -- of key and jti: a request counts once (replay)
    wrong_digits  INTEGER NOT NULL DEFAULT 0,
    requested_at  INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    peer          TEXT,
    conflict      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX pairings_open ON pairings (device) WHERE state IN ('requested', 'revealed');

CREATE TABLE operators (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    added_at    INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT;

CREATE TABLE operator_roles (
    operator INTEGER NOT NULL REFERENCES operators (id),
    site     TEXT NOT NULL REFERENCES sites (id),
    role     TEXT NOT NULL CHECK (role IN ('viewer', 'technician', 'approver', 'admin')),
    PRIMARY KEY (operator, site)
) STRICT, WITHOUT ROWID;

CREATE TABLE sign_in_links (
    hash       BLOB PRIMARY KEY,
    operator   INTEGER NOT NULL REFERENCES operators (id),
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    hash       BLOB PRIMARY KEY,
    operator   INTEGER NOT NULL REFERENCES operators (id),
    seen_at    INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (
    id                  INTEGER PRIMARY KEY,   -- carried in the device code
    device              INTEGER NOT NULL REFERENCES devices (row),
    -- Not IN: SQLite makes a temporary table of a longer list for each row that it checks.
    state               TEXT NOT NULL CHECK (state = 'pending' OR state = 'approved' OR state = 'redeemed' OR state = 'denied' OR state = 'revoked'),
    jkt                 BLOB NOT NULL CHECK (length(jkt) = 32),
    device_code_hash    BLOB NOT NULL,
    user_code_hash      BLOB NOT NULL,
    scope               TEXT NOT NULL,
    resource            TEXT NOT NULL,
    created_at          INTEGER NOT NULL,
    expires_at          INTEGER NOT NULL,
    interval            INTEGER NOT NULL,
    peer                TEXT,
    claimed_by          INTEGER REFERENCES operators (id),
    claimed_at          INTEGER,
    confirmation_number TEXT,
    wrong_numbers       INTEGER NOT NULL DEFAULT 0,
    decided_by          INTEGER REFERENCES operators (id),
    decided_at          INTEGER,
    refresh_hash        BLOB,
    refresh_previous    BLOB,
    refresh_rotated_at  INTEGER,
    refresh_idle_until  INTEGER,
    refresh_ends_at     INTEGER
) STRICT;
-- Only open codes can be typed; a spent one is as unknown as a wrong one.
CREATE UNIQUE INDEX grants_by_user_code ON grants (user_code_hash) WHERE state = 'pending';
-- What a suspension has to end.
CREATE INDEX grants_with_tokens ON grants (device) WHERE state = 'redeemed';

-- Wrong codes typed, per approver, per address and in all (R-8628-16).
CREATE TABLE guesses (
    bucket   TEXT PRIMARY KEY,
    since    INTEGER NOT NULL,
    count    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
    kid        TEXT PRIMARY KEY,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    event    TEXT NOT NULL,
    severity TEXT NOT NULL,
    actor    TEXT NOT NULL,
    device   TEXT,
    peer     TEXT,
    detail   TEXT NOT NULL,
    hash     BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_device ON audit (device, id) WHERE device IS NOT NULL;
CREATE INDEX audit_refusals ON audit (id) WHERE severity <> 'info';
CREATE INDEX audit_signed_in ON audit (at) WHERE event = 'token.issued';
