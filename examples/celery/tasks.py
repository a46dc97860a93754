"""An ordinary Celery worker: it knows nothing of sagas."""

import os

from celery import Celery

app = Celery("shop", broker=os.environ["BROKER_URL"], backend="rpc://")
app.conf.task_default_queue = "shop.tasks"
# RabbitMQ 4.3 no longer has the kind of queue that remote control takes.
app.conf.worker_enable_remote_control = False


class Declined(Exception):
    """The customer cannot pay."""


@app.task(name="shop.reserve")
def reserve(order_id, items):
    return {"reservation_id": f"r-{order_id}", "count": len(items)}


@app.task(name="shop.release")
def release(reservation_id):
    return None


@app.task(name="shop.charge")
def charge(order_id, amount=0):
    if amount > 100:
        raise Declined(f"{amount} is too much")
    return {"receipt": f"c-{order_id}"}
