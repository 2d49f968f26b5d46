//! Certificates from an ACME server (RFC 8555), by http-01.
