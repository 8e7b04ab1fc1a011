# SPDX-License-Identifier: Apache-2.0
"""DAGs as people write them, one for each case of docs/plugins/airflow.md. They know nothing of auditspan."""

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, Asset, BaseOperator, task
from airflow.sdk.bases.sensor import BaseSensorOperator

try:
    from airflow.sdk.exceptions import AirflowSkipException
except ImportError:  # before 3.2
    from airflow.exceptions import AirflowSkipException

ORDERS = Asset("file:///orders")
SOON = timedelta(seconds=1)
BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOTES = Path(os.environ.get("SHOP_NOTES", "/nowhere"))


class Deferring(BaseOperator):
    """Waits in the triggerer."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=4)), method_name="go_on")

    def go_on(self, context, event=None):
        return "done"


class Second(BaseSensorOperator):
    """Is content when it is asked for the second time."""

    def poke(self, context):
        note = NOTES / "asked"
        asked = note.exists()
        note.touch()
        return asked


# Due at once, so it must not begin before the API server answers.
with DAG("nightly", schedule="0 3 * * *", start_date=BEGAN, catchup=False, is_paused_upon_creation=True):

    @task
    def report():
        return "done"

    report()


with DAG("orders", schedule="0 0 29 2 *", start_date=BEGAN, catchup=False) as orders:  # not before 2028

    @task
    def count():
        return [1, 2, 3]

    @task(outlets=[ORDERS])
    def load(number):
        return number

    @task(retries=1, retry_delay=SOON)
    def flaky(ti=None):
        if ti.try_number == 1:
            raise ConnectionError("card 4111 1111 1111 1111")

    @task
    def optional():
        raise AirflowSkipException("not today")

    @task
    def after_optional():
        pass

    load.expand(number=count())
    flaky()
    optional() >> after_optional()


with DAG("on_orders", schedule=[ORDERS]):

    @task
    def ship():
        pass

    ship()


with DAG("broken", schedule=None):

    @task
    def fails():
        raise ValueError("card 4111 1111 1111 1111")

    @task
    def after_failure():
        pass

    @task
    def once_fixed():
        pass

    fails() >> after_failure()
    once_fixed()


with DAG("parent", schedule=None):
    TriggerDagRunOperator(task_id="start_child", trigger_dag_id="child")

with DAG("child", schedule=None):

    @task
    def play():
        pass

    play()


with DAG("waiting", schedule=None):
    Deferring(task_id="deferring")
    Second(task_id="second", mode="reschedule", poke_interval=4)


with DAG("untraced", schedule=None):

    @task
    def each(number):
        pass

    @task(retries=1, retry_delay=SOON)
    def flaky_too(ti=None):
        if ti.try_number == 1:
            raise ConnectionError("card 4111 1111 1111 1111")

    @task
    def in_vain():
        raise ValueError("card 4111 1111 1111 1111")

    each.expand(number=[1, 2])
    flaky_too()
    in_vain()


with DAG("long", schedule=None):

    @task
    def sleep():
        (NOTES / "sleeping").write_text(str(os.getpid()))
        time.sleep(600)

    @task
    def after_sleep():
        pass

    sleep() >> after_sleep()


with DAG("killed", schedule=None):

    @task(retries=1, retry_delay=SOON)
    def victim(ti=None):
        if ti.try_number == 1:
            (NOTES / "victim").write_text(str(os.getpid()))
            time.sleep(600)

    victim()


with DAG("many", schedule=None):

    @task
    def nothing(number):
        pass

    nothing.expand(number=list(range(12)))


with DAG("warm", schedule=None):

    @task(retries=20, retry_delay=SOON)
    def up():
        pass

    up()


if __name__ == "__main__":
    orders.test()
