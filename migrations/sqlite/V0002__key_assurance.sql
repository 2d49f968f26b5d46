-- How sure it is that a key can't leave its device: the words of KeyAssurance in src/model/device.rs. A pairing may reach a higher one until it is confirmed.
ALTER TABLE devices ADD COLUMN key_assurance TEXT NOT NULL DEFAULT 'software'
    CHECK (key_assurance = 'software' OR key_assurance = 'hardware-claimed' OR key_assurance = 'attested');
ALTER TABLE device_keys ADD COLUMN key_assurance TEXT NOT NULL DEFAULT 'software'
    CHECK (key_assurance = 'software' OR key_assurance = 'hardware-claimed' OR key_assurance = 'attested');
ALTER TABLE pairings ADD COLUMN key_assurance TEXT NOT NULL DEFAULT 'software'
    CHECK (key_assurance = 'software' OR key_assurance = 'hardware-claimed' OR key_assurance = 'attested');

-- The broker's key that the answer named, so that both sides compute the same digits also after the broker has a new one. NULL: asked before this migration.
ALTER TABLE pairings ADD COLUMN broker_jkt BLOB CHECK (length(broker_jkt) = 32);

-- A rotation: the device's former key, which vouches for the new one; and the hash of that key and the statement's jti, which counts once.
ALTER TABLE pairings ADD COLUMN vouched_by BLOB CHECK (length(vouched_by) = 32);
ALTER TABLE pairings ADD COLUMN vouch_hash BLOB CHECK ((vouch_hash IS NULL) = (vouched_by IS NULL));
CREATE UNIQUE INDEX pairings_by_vouch ON pairings (vouch_hash) WHERE vouch_hash IS NOT NULL;
