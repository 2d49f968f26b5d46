//! The nouns: data and legal transitions. No I/O, no async, no clock; time is a parameter `now`.

pub mod api_token;
pub mod audit;
pub mod change;
pub mod columns;
pub mod device;
pub mod grant;
pub mod import;
pub mod kind;
pub mod operator;
pub mod pairing;
pub mod policy;
pub mod resource;
pub mod risk;
pub mod site;
pub mod technician_code;
pub mod text;
pub mod told;
pub mod user_code;
