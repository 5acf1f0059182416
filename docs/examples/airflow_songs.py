"""A nightly catalogue as a DAG of Apache Airflow: new songs are predicted, then tagged."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

SONGS = "/data/songs"

with DAG(
    "songs",
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Two runs must not write one catalogue: the second would be refused.
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
):
    predict = BashOperator(
        task_id="predict",
        bash_command=f"mvemo predict {SONGS} --cache {SONGS}.h5 --csv {SONGS}.csv --quiet",
    )
    tag = BashOperator(task_id="tag", bash_command=f"mvemo tag {SONGS}.csv --write")
    predict >> tag
