#!/bin/sh
# Signs a paired device in by hand: RFC 8628 with a client certificate (RFC 8705). Needs sh, curl and openssl, and nothing that reads JSON.
#
#   ISSUER=https://pairgate.example.org ID=lobby-printer-01 sh sign-in.sh            asks for a code, shows it, waits for the approval
#   ISSUER=https://pairgate.example.org ID=lobby-printer-01 sh sign-in.sh refresh    trades the refresh token for new tokens
#   ISSUER=https://pairgate.example.org ID=lobby-printer-01 sh sign-in.sh revoke     gives the sign-in back
#
# In the current directory: ca.pem, the broker's authority, and device.key, the key that was paired. The certificate device.crt is made from the key if it
# is not there: what counts is the key in it. access_token and refresh_token are written there, too.
set -eu
umask 077

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# The string or number with this name in a JSON object without escapes, which ours are; nothing if there is none.
member() {
    case $2 in *"\"$1\":"*) ;; *) return 0 ;; esac
    value=${2#*"\"$1\":"}
    case $value in
    '"'*) value=${value#'"'} value=${value%%'"'*} ;;
    *) value=${value%%[,\}]*} ;;
    esac
    printf '%s' "$value"
}

# POST to an address; a secret comes by standard input, so that no list of processes shows it. 429 and 503 are tried again when the broker says.
post() {
    address=$1
    shift
    curl --silent --show-error --max-time 30 --retry 5 --cacert ca.pem --cert device.crt --key device.key \
        --data "client_id=$ID" "$@" "$address"
}

# Keeps the tokens of an answer. The new refresh token is on the disk before it is used, and never half.
keep() {
    for name in access_token refresh_token; do
        member "$name" "$1" >"$name.new"
        mv "$name.new" "$name"
    done
}

expect_tokens() {
    error=$(member error "$1")
    [ -z "$error" ] || fail "$error: $(member error_description "$1")"
    [ -n "$(member access_token "$1")" ] || fail "no answer that this script understands"
    keep "$1"
}

sign_in() {
    code=$(post "$device_authorization_endpoint")
    error=$(member error "$code")
    [ -z "$error" ] || fail "$error: $(member error_description "$code")"
    printf 'Open:   %s\n' "$(member verification_uri_complete "$code")"
    printf 'Code:   %s\n' "$(member user_code "$code")"
    interval=$(member interval "$code")
    shown=
    while sleep "$interval"; do
        # No answer at all: wait twice as long, then the same again.
        answer=$(member device_code "$code" | post "$token_endpoint" --data-urlencode device_code@- \
            --data grant_type=urn:ietf:params:oauth:grant-type:device_code) || {
            interval=$((interval * 2))
            continue
        }
        case $(member error "$answer") in
        authorization_pending)
            number=$(member confirmation_number "$answer")
            [ "$number" = "$shown" ] || printf 'Number: %s\n' "$number"
            shown=$number
            ;;
        slow_down)
            interval=$((interval + 5))
            printf 'Slower: every %s s\n' "$interval"
            ;;
        *) break ;;
        esac
    done
    expect_tokens "$answer"
    printf 'Signed in for %s s\n' "$(member expires_in "$answer")"
}

[ -e device.crt ] || openssl req -x509 -new -key device.key -subj "/CN=$ID" -days 3650 -out device.crt

# Where client certificates are asked for is another address (RFC 8705 section 5).
metadata=$(curl --silent --show-error --max-time 30 --cacert ca.pem "$ISSUER/.well-known/oauth-authorization-server")
aliases=${metadata#*\"mtls_endpoint_aliases\":}
[ "$aliases" != "$metadata" ] || fail "this broker asks for no client certificates"
device_authorization_endpoint=$(member device_authorization_endpoint "$aliases")
token_endpoint=$(member token_endpoint "$aliases")
revocation_endpoint=$(member revocation_endpoint "$aliases")

case ${1:-sign-in} in
sign-in) sign_in ;;
refresh)
    answer=$(post "$token_endpoint" --data-urlencode refresh_token@- --data grant_type=refresh_token <refresh_token)
    expect_tokens "$answer"
    printf 'Signed in for %s s\n' "$(member expires_in "$answer")"
    ;;
revoke)
    post "$revocation_endpoint" --fail --data-urlencode token@- <refresh_token
    rm -f access_token refresh_token
    printf 'Signed out\n'
    ;;
*) fail "sign-in, refresh or revoke" ;;
esac
