-- Sites are many, and people are something at each of them.

ALTER TABLE sites ADD COLUMN two_persons INTEGER NOT NULL DEFAULT 0;      -- who registered or paired a device may not alone approve its first sign-in
ALTER TABLE sites ADD COLUMN quiet_hours TEXT NOT NULL DEFAULT '';        -- '22:00-06:00', UTC: nobody is called for what waits

-- A role holds at one site, or everywhere ('*'). Until now there was one site, and who administered it administered everything.
CREATE TABLE operator_roles_by_site (
    operator INTEGER NOT NULL REFERENCES operators (id),
    site     TEXT NOT NULL,
    role     TEXT NOT NULL CHECK (role IN ('viewer', 'technician', 'approver', 'admin')),
    source   TEXT NOT NULL DEFAULT 'given' CHECK (source IN ('given', 'groups')), -- 'groups': by the identity provider's groups, anew at each sign-in
    PRIMARY KEY (operator, site, source)
) STRICT, WITHOUT ROWID;
INSERT INTO operator_roles_by_site (operator, site, role) SELECT operator, '*', role FROM operator_roles WHERE site = 'default';
DROP TABLE operator_roles;
ALTER TABLE operator_roles_by_site RENAME TO operator_roles;

-- Who a person is at the organisation's identity provider: issuer and subject (Entra: tid and oid), never an e-mail address (A-048).
ALTER TABLE operators ADD COLUMN sso_issuer TEXT;
ALTER TABLE operators ADD COLUMN sso_subject TEXT;
ALTER TABLE operators ADD COLUMN signed_in_at INTEGER;                    -- last, in any way
ALTER TABLE operators ADD COLUMN signed_out_at INTEGER;                   -- everywhere: approvals before it are void (A-047)
CREATE UNIQUE INDEX operators_by_sso ON operators (sso_issuer, sso_subject) WHERE sso_subject IS NOT NULL;

CREATE TABLE passkeys (
    credential BLOB PRIMARY KEY,               -- WebAuthn credential id
    operator   INTEGER NOT NULL REFERENCES operators (id),
    name       TEXT NOT NULL,
    data       TEXT NOT NULL,                  -- public key, counter and flags, as the library writes them
    added_at   INTEGER NOT NULL,
    used_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX passkeys_by_operator ON passkeys (operator);

-- What is between two steps of a browser: a passkey's challenge, a redirect to the identity provider. Found by the hash of a cookie, good once.
CREATE TABLE ceremonies (
    hash       BLOB PRIMARY KEY CHECK (length(hash) = 32),
    purpose    TEXT NOT NULL,
    state      TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ceremonies_by_expiry ON ceremonies (expires_at);

ALTER TABLE sessions ADD COLUMN started_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN fresh_at INTEGER NOT NULL DEFAULT 0;      -- when the person last proved who it is
ALTER TABLE sessions ADD COLUMN method TEXT NOT NULL DEFAULT 'link' CHECK (method IN ('link', 'passkey', 'sso'));
ALTER TABLE sessions ADD COLUMN peer TEXT;
ALTER TABLE sessions ADD COLUMN agent TEXT NOT NULL DEFAULT '';           -- the browser, by its own word

ALTER TABLE devices ADD COLUMN floor TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN registered_by TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN manifest_jkt BLOB CHECK (manifest_jkt IS NULL OR length(manifest_jkt) = 32);
ALTER TABLE devices ADD COLUMN identify_until INTEGER;                    -- until then its next answer asks it to show itself
ALTER TABLE devices ADD COLUMN stolen_at INTEGER;                         -- reported stolen then; until it is resumed or replaced
CREATE INDEX devices_by_site ON devices (site, id);
CREATE INDEX devices_by_floor ON devices (site, floor, state, jkt);        -- all that progress by floor is counted from
CREATE UNIQUE INDEX devices_by_manifest ON devices (manifest_jkt) WHERE manifest_jkt IS NOT NULL;

-- Who may approve a device's sign-ins, if not everybody who may at its site (A-101).
CREATE TABLE device_approvers (
    device   INTEGER NOT NULL REFERENCES devices (row),
    operator INTEGER NOT NULL REFERENCES operators (id),
    PRIMARY KEY (device, operator)
) STRICT, WITHOUT ROWID;

-- Who approved first, where a second person must.
ALTER TABLE grants ADD COLUMN first_by INTEGER REFERENCES operators (id);
ALTER TABLE grants ADD COLUMN first_at INTEGER;
CREATE INDEX grants_claimed ON grants (claimed_by) WHERE state = 'pending' AND claimed_by IS NOT NULL;
CREATE INDEX grants_decided ON grants (device, decided_by) WHERE decided_by IS NOT NULL;

-- Charts count by time and site, without a look at the records themselves.
DROP INDEX audit_signed_in;
CREATE INDEX audit_signed_in ON audit (at, device) WHERE event = 'token.issued';
CREATE INDEX audit_refused ON audit (at, device, severity) WHERE severity <> 'info';

-- A technician without an account pairs exactly one device with one code.
CREATE TABLE technician_codes (
    hash       BLOB PRIMARY KEY CHECK (length(hash) = 32),
    device     INTEGER NOT NULL REFERENCES devices (row),
    made_by    TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    session    BLOB UNIQUE CHECK (session IS NULL OR length(session) = 32)
) STRICT, WITHOUT ROWID;
CREATE INDEX technician_codes_by_device ON technician_codes (device);

-- Kinds and resources as edited: TOML, each version whole. The newest that is applied holds.
CREATE TABLE policy_versions (
    version     INTEGER PRIMARY KEY,
    base        INTEGER NOT NULL,              -- the version that held when this one was written; 0 for none
    document    TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('proposed', 'applied', 'withdrawn')),
    proposed_at INTEGER NOT NULL,
    proposed_by TEXT NOT NULL,
    decided_at  INTEGER,
    decided_by  TEXT
) STRICT;
CREATE INDEX audit_of_sites ON audit (id) WHERE event IN ('site.added', 'site.changed');

-- Of programs, never of people.
CREATE TABLE api_tokens (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    rights     TEXT NOT NULL,
    made_by    TEXT NOT NULL,
    made_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    revoked_at INTEGER
) STRICT;

-- The risk assessment (RFC 10027): each version whole, signed by the broker's key.
CREATE TABLE risk_records (
    version   INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    by        TEXT NOT NULL,
    document  TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
