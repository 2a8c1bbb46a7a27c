#!/bin/sh
# Makes the keys and passwords that deploy/compose.yaml reads. What is there already stays.
#
#   sh deploy/secrets.sh [FOLDER]     FOLDER is deploy/secrets, if none is named
set -eu
umask 077

folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
# Nobody but its owner gets into the folder. The files themselves are mounted as they are, and the
# servers that read them run as other users.
chmod 700 "$folder"

# random BYTES: as hexadecimal digits
random() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# keep FILE: what comes in becomes the file, whole or not at all, unless there is one
keep() {
  if [ -e "$folder/$1" ]; then
    cat >/dev/null
    echo "$folder/$1: kept"
  else
    cat >"$folder/.$1"
    chmod 444 "$folder/.$1"
    mv "$folder/.$1" "$folder/$1"
    echo "$folder/$1: made"
  fi
}

random 32 | keep portal_secret_key
random 256 | keep mongodb_keyfile
random 24 | keep mongodb_admin_password
random 24 | keep mongodb_portal_password
keep portal.toml <<TOML
# What the server needs to know of the database; any other setting may stand here too.
mongodb_uri = "mongodb://portal:$(cat "$folder/mongodb_portal_password")@mongodb-1,mongodb-2,mongodb-3/fhir_portal?replicaSet=rs0"
TOML
