# Sourced by the other scripts: a virtual environment in .venv with this project installed in it, at tested versions.
# $1: the extras to install, such as "[test]"; empty for none. $PYTHON names the interpreter.
make_environment() {
    if [ ! -x .venv/bin/python ]; then
        "${PYTHON:-python3}" -m venv .venv
    fi
    echo "installing into .venv (a minute or two the first time)" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$1"
}
