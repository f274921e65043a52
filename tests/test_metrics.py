from prometheus_client.parser import text_string_to_metric_families

from pxeboot.metrics import Metric, Numbers, exposition


async def test_metrics_are_written_as_prometheus_reads_them() -> None:
    async def later() -> Numbers:
        return {"": 7}

    counts = {"done": 1, 'odd "name"': 2}
    metrics = [
        Metric("counter", "reads", "Reads.", "result", lambda: counts),
        Metric("gauge", "waiting", "Who waits.", "", later),
        Metric("gauge", "nothing", "Without a value yet.", "stage", dict),
    ]
    text = (await exposition(metrics)).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    reads, waiting = families["pxeboot_reads"], families["pxeboot_waiting"]
    assert (reads.type, reads.documentation) == ("counter", "Reads.")
    samples = {sample.labels["result"]: (sample.name, sample.value) for sample in reads.samples}
    assert samples == {name: ("pxeboot_reads_total", number) for name, number in counts.items()}
    assert [(sample.labels, sample.value) for sample in waiting.samples] == [({}, 7)]
    assert families["pxeboot_nothing"].samples == []


async def test_numbers_are_read_anew_each_time() -> None:
    count = {"": 1}
    metrics = [Metric("counter", "turns", "Turns.", "", lambda: count)]
    assert b"pxeboot_turns_total 1.0" in await exposition(metrics)
    count[""] += 1
    assert b"pxeboot_turns_total 2.0" in await exposition(metrics)
