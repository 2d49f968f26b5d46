-- Signing keys are exchanged. Of each algorithm one key is current; those before it still verify until they are dropped, and then only their row stays:
-- a key id that was in use once is never in use again.

CREATE TABLE signing_keys_by_algorithm (
    kid        TEXT PRIMARY KEY,
    algorithm  TEXT NOT NULL CHECK (algorithm IN ('ES256', 'RS256')),
    sealed     BLOB NOT NULL,                  -- empty: dropped
    created_at INTEGER NOT NULL,
    retires_at INTEGER                         -- NULL: current
) STRICT, WITHOUT ROWID;
INSERT INTO signing_keys_by_algorithm (kid, algorithm, sealed, created_at) SELECT kid, 'ES256', sealed, created_at FROM signing_keys;
DROP TABLE signing_keys;
ALTER TABLE signing_keys_by_algorithm RENAME TO signing_keys;
-- Whatever happens at once: never two of an algorithm.
CREATE UNIQUE INDEX signing_keys_current ON signing_keys (algorithm) WHERE retires_at IS NULL;
