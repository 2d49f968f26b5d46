//! The MQTT edge (`docs/mqtt.md`, `docs/decisions/0014-mqtt.md`): messages in, one broker call, messages out. What is signed decides; the transport never does.
//!
//! | file | does |
//! | --- | --- |
//! | [`topics`] | the topics, and who may do what with them |
//! | [`desk`] | what becomes of a message that came in, and what is to be sent |
//! | [`follow`] | reads the news off the audit log and hands them on |
//! | [`client`], [`link`], [`relay`] | the connection to the organisation's broker: which node has it, the protocol, TLS |
//! | [`acl`] | rules for Mosquitto |
//! | [`check`], [`trial`], [`peer`] | `pairgate mqtt check`: what is tried at such a broker, the words for it, its connections |
//! | [`embedded`], [`session`] | our own endpoint: who is connected, and one connection |

pub mod acl;
pub mod check;
pub mod client;
pub mod desk;
pub mod embedded;
pub mod follow;
pub mod link;
pub mod peer;
pub mod relay;
pub mod session;
pub mod topics;
pub mod trial;
