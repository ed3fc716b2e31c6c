#!/bin/sh
# Made the certificates beside it, once: tests must not need openssl. The keys are for tests only and worth nothing.
# alpha and beta are of one authority, stranger of another; of the first also: expired, one of X.509 version 1,
# one with an RSA and one with an Ed25519 key.
set -e
cd "$(dirname "$0")"
work=$(mktemp -d)
p256="ec -pkeyopt ec_paramgen_curve:P-256"
for name in authority other; do
  openssl req -x509 -newkey $p256 -nodes -days 36500 -subj "/CN=$name" -keyout "$work/$name.key" -out $name.pem
done
request() { openssl req -newkey $2 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$work/$1.csr"; }
sign() { # name, authority, more arguments
  name=$1 by=$2
  shift 2
  openssl x509 -req -in "$work/$name.csr" -CA "$by.pem" -CAkey "$work/$by.key" -CAcreateserial -CAserial "$work/serial" \
    -days 36500 -out "$name.pem" "$@"
}
printf 'basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:node\n' >"$work/leaf"
for name in alpha beta; do request $name "$p256" && sign $name authority -extfile "$work/leaf"; done
request stranger "$p256" && sign stranger other -extfile "$work/leaf"
request version1 "$p256" && sign version1 authority
request rsa rsa:2048 && sign rsa authority -extfile "$work/leaf"
request ed25519 ed25519 && sign ed25519 authority -extfile "$work/leaf"
request expired "$p256"
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nserial=%s/number\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' \
  "$work" "$work" "$work" >"$work/ca.cnf"
: >"$work/index"
echo 01 >"$work/number"
openssl ca -batch -config "$work/ca.cnf" -cert authority.pem -keyfile "$work/authority.key" -in "$work/expired.csr" \
  -out expired.pem -startdate 200101000000Z -enddate 210101000000Z -extfile "$work/leaf" -notext
rm -r "$work"
