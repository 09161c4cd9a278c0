#!/usr/bin/env bash
# From a fresh clone to a trained model whose shadow weights answer questions: about two minutes on 2 CPU cores.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment ""

run=runs/quickstart-$(date +%Y%m%d-%H%M%S)
.venv/bin/bidaf train --config mini.yaml --run-dir "$run"
.venv/bin/bidaf eval --model "$run" --both
.venv/bin/bidaf predict data/mini/questions.json --model "$run" --output "$run/answers.json"
cat "$run/answers.json"

cat <<END

  $run/report.html       what the average did: open it in a browser
  $run/metrics.jsonl     loss, EM and F1 of raw and shadow weights, step by step
  $run/best              the checkpoint with the best shadow F1: raw weights, shadow, optimizer
  $run/answers.json      answers to data/mini/questions.json

Next:  source .venv/bin/activate
       bidaf predict your.json            a list of {"context": ..., "question": ...}
       bidaf export -o exports/mini       a folder that needs nothing else
       bidaf train --config squad.yaml    the paper's run; says which files to put where
END
