//! Device codes and refresh tokens as presented: `parse_reference`; and the other identifiers that arrive as text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pairgate::id::{DeviceId, GrantId, PairingId};
use pairgate::model::grant::{parse_reference, reference};
use pairgate::secret::{b64u, bytes32_from_b64u, from_b64u};

fuzz_target!(|data: &[u8]| {
    // Any row and secret read back, and no other text is that reference.
    if let Some((bytes, rest)) = data.split_first_chunk::<40>() {
        let (id, secret) = bytes.split_at(8);
        let id = GrantId(i64::from_be_bytes(id.try_into().expect("eight bytes")));
        let secret = secret.try_into().expect("32 bytes");
        let text = reference(id, &secret);
        assert_eq!(parse_reference(&text), Some((id, secret)));
        if let [place, other, ..] = rest {
            let mut wrong = text.clone().into_bytes();
            let place = usize::from(*place) % wrong.len();
            wrong[place] = other & 0x7F;
            let wrong = String::from_utf8(wrong).expect("ASCII");
            assert_eq!(parse_reference(&wrong) == Some((id, secret)), wrong == text, "two spellings of one code");
        }
    }

    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((id, secret)) = parse_reference(text) {
        assert_eq!(reference(id, &secret), text, "two spellings of one code");
    }
    let bytes = from_b64u(text);
    if let Some(bytes) = &bytes {
        assert_eq!(b64u(bytes), text, "two spellings of one value");
    }
    assert_eq!(bytes32_from_b64u(text).map(Vec::from), bytes.clone().filter(|bytes| bytes.len() == 32));
    assert_eq!(PairingId::parse(text).is_some(), bytes.is_some_and(|bytes| bytes.len() == 16));
    if let Ok(id) = DeviceId::new(text) {
        assert_eq!(id.as_str(), text, "nothing is corrected in silence");
        assert!(text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) && text.len() <= 64);
    }
});
