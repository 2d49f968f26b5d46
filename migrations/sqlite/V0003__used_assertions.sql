-- Client assertions that have made a code. Each counts once, also after a restart (RFC 7523 section 3, item 7).
CREATE TABLE used_assertions (
    hash  BLOB PRIMARY KEY CHECK (length(hash) = 32),
    until INTEGER NOT NULL                     -- from then on it has expired, and is forgotten
) STRICT, WITHOUT ROWID;
CREATE INDEX used_assertions_by_end ON used_assertions (until);
