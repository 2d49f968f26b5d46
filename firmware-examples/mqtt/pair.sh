#!/bin/sh
# Pairs a device by hand over MQTT (docs/mqtt.md). Needs sh, openssl (3), and Mosquitto's clients (mosquitto_rr, mosquitto_sub); nothing that reads JSON.
#
#   ISSUER=https://pairgate.example.org ID=lobby-tv-01 MQTT_HOST=mqtt.example.org CA=ca.pem sh pair.sh           shows six digits, waits for the operator
#   ISSUER=https://pairgate.example.org ID=lobby-tv-01 MQTT_HOST=mqtt.example.org CA=ca.pem sh pair.sh listen    prints what the paired device is told
#
# In the current directory: device.key, the device's key, which is made if it is not there; and pinned/, what the device has to remember of Pairgate once it is
# paired: issuer, jwks.json, and ca.pem if Pairgate has an authority of its own.
#
# For single steps with Mosquitto's clients: `pair.sh message` prints a signed pairing request, `pair.sh password NAME` a client id, which ends in NAME, and a
# password for one connection under it.
#
#   SERIAL                          the serial number, if one is registered
#   MQTT_HOST, MQTT_PORT            where; by default this machine, and 8883 with CA, 1883 without
#   PREFIX                          what the topics begin with, by default pairgate
#   CA                              PEM file of the authority of the MQTT broker's certificate. Without it there is no TLS: only for this machine
#   MQTT_USER, MQTT_PASSWORD_FILE   to be paired, where devices share a password for that (Mosquitto). Without them the script signs a password of its own
#   CERT                            to listen, where a certificate of device.key is asked for. Without it the script signs a password
#   MQTT_VERSION                    311, if the broker does not speak MQTT 5
set -eu
umask 077
export LC_ALL=C

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

# The string or number with this name in a JSON object; nothing if there is none. A name inside a string has a backslash before its closing quote, and is not found.
member() {
    case $2 in *"\"$1\":"*) ;; *) return 0 ;; esac
    value=${2#*"\"$1\":"}
    case $value in
    '"'*) value=${value#'"'} value=${value%%'"'*} ;;
    *) value=${value%%[,\}]*} ;;
    esac
    printf '%s' "$value"
}

# What others have sent does not control the terminal.
show() {
    printf '%s\n' "$1" | tr -cd '[:print:]\n'
}

hex() {
    od -An -v -tx1 | tr -d ' \n'
}

# Bytes from hexadecimal digits.
bytes() {
    rest=$1 escaped=
    while [ -n "$rest" ]; do
        byte=$((0x${rest%"${rest#??}"})) rest=${rest#??}
        escaped=$escaped\\0$((byte / 64))$((byte / 8 % 8))$((byte % 8))
    done
    printf '%b' "$escaped"
}

b64u() {
    openssl base64 -A | tr '+/' '-_' | tr -d '='
}

from_b64u() {
    text=$1
    while [ $((${#text} % 4)) -ne 0 ]; do text=$text=; done
    { printf '%s' "$text" | tr -- '-_' '+/' | fold -w 64 && echo; } | openssl base64 -d
}

sha256() {
    openssl dgst -sha256 -binary
}

# RFC 7638, of a P-256 key.
thumbprint() {
    printf '{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' "$1" "$2" | sha256 | b64u
}

# What stands before both coordinates in the DER of a P-256 public key (RFC 5480).
BEFORE_POINT=3059301306072a8648ce3d020106082a8648ce3d03010703420004

# A JWT by the device's key: typ, claims. OpenSSL signs in DER; a JWT has both numbers, 32 bytes each (RFC 7518 section 3.4).
sign() {
    input=$(printf '{"typ":"%s","alg":"ES256","jwk":%s}' "$1" "$jwk" | b64u).$(printf '%s' "$2" | b64u)
    numbers=$(printf '%s' "$input" | openssl dgst -sha256 -sign device.key | openssl asn1parse -inform DER | sed -n 's/.*INTEGER *://p')
    raw=
    for number in $numbers; do
        while [ ${#number} -lt 64 ]; do number=0$number; done
        raw=$raw$number
    done
    printf '%s.%s' "$input" "$(bytes "$raw" | b64u)"
}

# Takes a JWT apart, into header, claims, input and signature; nothing in it is believed yet.
take_apart() {
    case $1 in
    *[!A-Za-z0-9_.-]* | *.*.*.*) return 1 ;;
    ?*.?*.?*) ;;
    *) return 1 ;;
    esac
    input=${1%.*} signature=${1##*.}
    header=$(from_b64u "${input%.*}") && claims=$(from_b64u "${input#*.}") || return 1
}

# Is it signed by the P-256 key with these coordinates?
is_signed_by() {
    case $1$2 in *[!A-Za-z0-9_-]*) return 1 ;; esac
    [ "$(member alg "$header")" = ES256 ] && [ ${#1} -eq 43 ] && [ ${#2} -eq 43 ] || return 1
    raw=$(from_b64u "$signature" | hex)
    [ ${#raw} -eq 128 ] || return 1
    { bytes $BEFORE_POINT && from_b64u "$1" && from_b64u "$2"; } |
        openssl pkey -pubin -inform DER -out "$work/public.pem" 2>"$work/why" || return 1
    printf 'asn1=SEQUENCE:signature\n[signature]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' \
        "$(printf '%s' "$raw" | cut -c 1-64)" "$(printf '%s' "$raw" | cut -c 65-)" >"$work/signature.conf"
    openssl asn1parse -genconf "$work/signature.conf" -noout -out "$work/signature" >"$work/why" 2>&1 || return 1
    printf '%s' "$input" | openssl dgst -sha256 -verify "$work/public.pem" -signature "$work/signature" >"$work/why" 2>&1
}

# Is it an answer about pairing, for this device, by the key that it carries? That key's thumbprint is then signer.
is_authentic() {
    take_apart "$1" || return 1
    [ "$(member typ "$header")" = pairing-response+jwt ] || return 1
    key=${header#*'"jwk":'}
    x=$(member x "$key") y=$(member y "$key")
    is_signed_by "$x" "$y" || return 1
    signer=$(thumbprint "$x" "$y")
    [ "$(member iss "$claims")" = "$ISSUER" ] && [ "$(member aud "$claims")" = "$ID" ]
}

# Finds a key by its kid in a JWK set, whose keys are flat objects: sets x and y.
find_key() {
    keys=$2
    while :; do
        case $keys in *'}'*) ;; *) return 1 ;; esac
        key=${keys%%\}*} keys=${keys#*\}}
        [ "$(member kid "$key")" = "$1" ] || continue
        x=$(member x "$key") y=$(member y "$key")
        return 0
    done
}

# How Mosquitto's clients connect, in files of options: no list of processes shows a password. Client id, user name, password (none, if it is empty).
connect_as() {
    {
        printf '%s\n' "-h $MQTT_HOST" "-p $MQTT_PORT" "-V $MQTT_VERSION" "-q 1" "-i $1"
        [ -z "$CA" ] || printf '%s\n' "--cafile $CA"
        [ -z "$2" ] || printf '%s\n' "-u $2"
        [ -z "$3" ] || printf '%s\n' "-P $3"
    } >"$work/mosquitto_rr"
}

# A password for one connection.
password() {
    now=$(date +%s)
    sign mqtt+jwt "$(printf '{"iss":"%s","aud":"%s","iat":%s,"exp":%s,"jti":"%s"}' "$ID" "$ISSUER" "$now" $((now + 120)) "$(openssl rand -hex 16)")"
}

connect_to_be_paired() {
    if [ -n "$MQTT_USER" ]; then
        connect_as "$client" "$MQTT_USER" "$shared"
    else
        connect_as "$client" "$ID" "$(password)"
    fi
}

# Runs one of the clients; what it heard is in answer. In the background, so that a signal ends both.
run() {
    answer= code=0
    cp "$work/mosquitto_rr" "$work/mosquitto_sub"
    XDG_CONFIG_HOME=$work "$@" >"$work/heard" 2>"$work/why" </dev/null &
    child=$!
    wait $child || code=$?
    child=
    # 27: nothing came in time.
    [ $code -eq 0 ] || [ $code -eq 27 ] || fail "the MQTT broker did not take the connection, or ended it: $(cat "$work/why")"
    IFS= read -r answer <"$work/heard" || :
}

# Sends a pairing message, which holds no secret, and waits for an answer. One connection does both: it subscribes before it publishes, and Pairgate's own
# endpoint answers who asked. (Not by -f or -s: some releases of mosquitto_rr send an empty message then.)
ask() {
    connect_to_be_paired
    run mosquitto_rr -t "$topic/pairing/request" -e "$topic/pairing/response" -m "$1" -W 10
}

# A refusal is not signed: anybody could have sent it who may publish there. So it ends this attempt, and nothing else.
stop_if_refused() {
    case $answer in '{'*) ;; *) return 0 ;; esac
    why=$(member error_description "$answer")
    fail "$(show "refused: ${why:-$(member error "$answer")}")"
}

# A pairing message, in message; what its answer is held against, in nonce and jti.
make_request() {
    nonce=$(openssl rand -hex 32)
    [ ${#nonce} -eq 64 ] || fail "no random numbers"
    commitment=$({ printf 'pairgate pairing v1' && bytes "$nonce$jkt_hex"; } | sha256 | b64u)
    serial=
    [ -z "$SERIAL" ] || serial=$(printf ',"serial":"%s"' "$SERIAL")
    jti=$(openssl rand -hex 16)
    message=$(sign pairing-request+jwt "$(printf '{"iss":"%s","aud":"%s","iat":%s,"jti":"%s","commitment":"%s"%s}' \
        "$ID" "$ISSUER" "$(date +%s)" "$jti" "$commitment" "$serial")")
}

request() {
    make_request
    ask "$message"
    stop_if_refused
    # Without the last, the digits could be compared over one key while another one signs what gets pinned; without the one before, the answer could be
    # to something else that asked in this device's name.
    is_authentic "$answer" && [ "$(member status "$claims")" = requested ] && [ "$(member jti "$claims")" = "$jti" ] &&
        [ "$(member broker_jkt "$claims")" = "$signer" ]
}

poll() {
    jti=$(openssl rand -hex 16)
    ask "$(sign pairing-poll+jwt "$(printf '{"iss":"%s","aud":"%s","iat":%s,"jti":"%s","pairing_id":"%s","device_nonce":"%s"}' \
        "$ID" "$ISSUER" "$(date +%s)" "$jti" "$pairing_id" "$(bytes "$nonce" | b64u)")")"
    stop_if_refused
}

# Is it Pairgate's answer to the last poll: by the key that the pairing began with, and no earlier one that is played again? Its status is then in status.
is_answer() {
    is_authentic "$answer" && [ "$signer" = "$broker_jkt" ] && [ "$(member jti "$claims")" = "$jti" ] &&
        [ "$(member pairing_id "$claims")" = "$pairing_id" ] || return 1
    status=$(member status "$claims")
    case $claims in *'"identify":true'*) printf 'Somebody looks for this device\n' ;; esac
}

# The six digits that both sides derive from both keys and both nonces.
digits() {
    code=$({ printf 'pairgate comparison v1' && bytes "$jkt_hex$(from_b64u "$broker_jkt" | hex)$nonce$(from_b64u "$broker_nonce" | hex)"; } | sha256 | hex)
    number=0
    for at in 1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16; do
        number=$(((number * 256 + 0x$(printf '%s' "$code" | cut -c $at)) % 1000000))
    done
    printf '%06d' $number
}

# Remembers what Pairgate said when it was confirmed: only what contains the key that signed it.
pin() {
    case $claims in *'"jwks":{"keys":['*']}'*) ;; *) fail "no keys to pin" ;; esac
    jwks=${claims#*'"jwks":'}
    jwks=${jwks%%']}'*}']}'
    signed_x=$x
    { find_key "$broker_jkt" "$jwks" && [ "$x" = "$signed_x" ]; } || fail "the keys to pin do not contain the key that signed"
    [ "$(member issuer "$claims")" = "$ISSUER" ] || fail "the issuer to pin is not the one that was asked"
    mkdir -p pinned
    ca=$(member ca "$claims")
    case $ca in
    -----BEGIN*) printf '%b' "$ca" >pinned/ca.pem.new && mv pinned/ca.pem.new pinned/ca.pem ;;
    *) rm -f pinned/ca.pem ;;
    esac
    printf '%s\n' "$jwks" >pinned/jwks.json.new && mv pinned/jwks.json.new pinned/jwks.json
    printf '%s\n' "$ISSUER" >pinned/issuer.new && mv pinned/issuer.new pinned/issuer
}

pair() {
    tries=0
    until request; do
        tries=$((tries + 1))
        [ $tries -lt 3 ] || fail "no answer from Pairgate, or none that is signed as it should be"
        sleep 2
    done
    broker_jkt=$signer pairing_id=$(member pairing_id "$claims") broker_nonce=$(member broker_nonce "$claims")
    link=$(member pairing_uri_complete "$claims") shown=
    case $link in "$ISSUER"/*) ;; *) fail "the link leads elsewhere than to the issuer" ;; esac
    while :; do
        poll
        is_answer || {
            sleep 2
            continue
        }
        if [ "$status" = pending ]; then
            [ -n "$shown" ] || printf 'Link:   %s\nDigits: %s\n' "$(show "$link")" "$(digits)"
            shown=yes
            # When an operator confirms, the poll is answered once more. What is lost in between is found by the next poll.
            connect_to_be_paired
            run mosquitto_sub -R -t "$topic/pairing/response" -C 1 -W 5
            stop_if_refused
            is_answer || continue
        fi
        [ "$status" != paired ] || break
    done
    pin
    printf 'Paired with %s\n' "$ISSUER"
}

# Is it an event by a pinned key, for this device, in time, and new?
is_event() {
    take_apart "$1" && [ "$(member typ "$header")" = device-event+jwt ] || return 1
    find_key "$(member kid "$header")" "$jwks" && is_signed_by "$x" "$y" || return 1
    [ "$(member iss "$claims")" = "$ISSUER" ] && [ "$(member aud "$claims")" = "$ID" ] || return 1
    [ "$(member exp "$claims")" -gt "$(date +%s)" ] 2>"$work/why" || return 1
    jti=$(member jti "$claims")
    case " $seen " in *" $jti "*) return 1 ;; esac
    seen="$seen $jti"
}

listen() {
    [ -e pinned/jwks.json ] && [ "$(cat pinned/issuer)" = "$ISSUER" ] || fail "not paired with $ISSUER: nothing is pinned here"
    jwks=$(cat pinned/jwks.json) seen=
    mkfifo "$work/events"
    while :; do
        # A password is good for one connection: for the next one there must be a new one.
        if [ -n "$CERT" ]; then
            connect_as "$ID" "" ""
            printf '%s\n' "--cert $CERT" "--key device.key" >>"$work/mosquitto_rr"
        else
            connect_as "$ID" "$ID" "$(password)"
        fi
        mv "$work/mosquitto_rr" "$work/mosquitto_sub"
        XDG_CONFIG_HOME=$work mosquitto_sub -R -t "$topic/event" >"$work/events" </dev/null &
        child=$!
        while IFS= read -r message; do
            if is_event "$message"; then
                number=$(member confirmation_number "$claims")
                show "$(member event "$claims")${number:+ $number}"
            else
                printf 'A message was dropped that is not by Pairgate, for this device, in time and new\n' >&2
            fi
        done <"$work/events"
        wait $child || :
        child=
        printf 'The connection is lost; once more in 5 s\n' >&2
        sleep 5
    done
}

: "${ISSUER:?the address of Pairgate}" "${ID:?the device id}" "${SERIAL:=}" "${PREFIX:=pairgate}" "${CA:=}" "${CERT:=}" "${MQTT_USER:=}" "${MQTT_VERSION:=5}"
: "${MQTT_HOST:=localhost}" "${MQTT_PORT:=$([ -n "$CA" ] && echo 8883 || echo 1883)}"
ISSUER=${ISSUER%/}
# What goes into messages and topics as it is.
case $ID in *[!a-z0-9-]*) fail "no device id: $ID" ;; esac
case $ISSUER$SERIAL$PREFIX in *[!\ -~]* | *[\"\\+#]*) fail "a character that cannot be in ISSUER, SERIAL or PREFIX" ;; esac
case $CA,$MQTT_HOST in ,localhost | ,127.0.0.1 | ,::1 | ?*,*) ;; *) fail "without TLS only to this machine: CA is missing" ;; esac
shared=
if [ -n "$MQTT_USER" ]; then
    IFS= read -r shared <"${MQTT_PASSWORD_FILE:?the file with the password of MQTT_USER}" || [ -n "$shared" ] || fail "no password in $MQTT_PASSWORD_FILE"
fi
for tool in openssl mosquitto_rr mosquitto_sub; do
    command -v $tool >/dev/null || fail "$tool is missing: apt-get install openssl mosquitto-clients"
done

child=
work=$(mktemp -d)
trap '[ -z "$child" ] || kill $child 2>/dev/null || :; rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if [ ! -e device.key ]; then
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out device.key.new
    mv device.key.new device.key
fi
point=$(openssl pkey -in device.key -pubout -outform DER | hex)
case $point in $BEFORE_POINT*) point=${point#$BEFORE_POINT} ;; *) fail "device.key is no P-256 key" ;; esac
own_x=$(bytes "$(printf '%s' "$point" | cut -c 1-64)" | b64u) own_y=$(bytes "$(printf '%s' "$point" | cut -c 65-128)" | b64u)
jwk=$(printf '{"kty":"EC","crv":"P-256","x":"%s","y":"%s"}' "$own_x" "$own_y")
jkt=$(thumbprint "$own_x" "$own_y")
jkt_hex=$(from_b64u "$jkt" | hex)
client=$ID.$(printf '%s' "$jkt" | cut -c 1-16)
topic=$PREFIX/v1/$ID

case ${1:-pair} in
pair) pair ;;
listen) listen ;;
message) make_request && printf '%s\n' "$message" ;;
password) printf '%s\n%s\n' "$client${2:+.$2}" "$(password)" ;;
*) fail "pair, listen, message or password" ;;
esac
