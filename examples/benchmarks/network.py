"""How much of a gigabit link do batches use, that three hosts make for a fourth?

Method: `cluster/local/hosts.sh` makes four hosts of this machine; every link is shaped to 1 Gbit, and in the second
half takes 1 ms in each direction, so that a batch is 2 ms on its way. Each of three hosts has random batches at hand
that cost nothing to make; host 0 reads them and looks at one byte of every page. The contenders take turns, three
rounds: 3 s that do not count, which empty their queues, then 8 s; each begins when the link is idle. Beside them, in
each round, iperf3 from the three hosts to host 0 at once: the ratios are to what it moves, and count the arrays' bytes
alone.

    iperf3       three clients, one a host: the limit
    rayfeed      Feed(workers=3, use_multiprocessing=True, max_queue_size=64)
    ray data     map_batches over three tasks, one a host, iter_batches(prefetch_batches=16)
    zmq          no library but a pipe: PUSH on each host, PULL here, four batches ahead each

Then, with rayfeed alone and in as many rounds: the share of its time that a consumer waits whose own work on a batch
takes 1.25 times what the link needs for it. Wants root, iperf3, and `pip install '.[bench]'`.

    sudo .venv/bin/python examples/benchmarks/network.py

Report (2026-11-28, 2 cores for all four hosts, Ray 2.60, pyzmq 27.3; medians of three rounds, in MB a second):

                     iperf3   rayfeed  ray data       zmq    rayfeed of iperf3    waits, of its time
    600 KB              120       117       111       119    0.98 (0.98 to 1.00)    0.03 (0.03 to 0.03)
    4.8 MB              120       120       116       119    1.00 (0.99 to 1.05)    0.01 (0.01 to 0.01)
    19 MB               120       123        39       119    1.03 (1.02 to 1.09)    0.02 (0.00 to 0.04)
    600 KB, 2 ms        120       112       101       116    0.94 (0.93 to 0.95)    0.02 (0.02 to 0.03)
    4.8 MB, 2 ms        120       117       115       116    0.98 (0.95 to 0.99)    0.01 (0.01 to 0.01)
    19 MB, 2 ms         120       125        26       120    1.05 (0.96 to 1.08)    0.03 (0.00 to 0.04)

Wanted were 0.9 of iperf3, and 0.05 of the time; the waits are of `network.py rayfeed` on the same day. More than the
link can carry is counted where frames that are on their way at once, 150 MB in all, arrive together: at 19 MB a turn of
8 s may have a tenth too many or too few.
"""

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import Target, finish, ratios
from loaders import LENGTH, ROWS, RayDataBatches, Ready, touch

import rayfeed

HERE = Path(__file__).resolve()
SCRIPT = HERE.parents[2] / "cluster" / "local" / "hosts.sh"
SIZES = {"600 KB": 602_112, "4.8 MB": 4_800_000, "19 MB": 19_200_000}
LINK = "1gbit"
DELAY_MS = 1  # of each link, of which a batch takes two
PRODUCERS = (1, 2, 3)
ROUNDS = 3
WARM_S = 3.0
TURN_S = 8.0
IPERF_S = 5
ANSWER_S = 90.0
QUEUE = 64
PUSH_PORT, IPERF_PORT = 5500, 5200
SEND_MS = 500
LOOK_S = 0.5
IDLE_BYTES = 200_000  # in that time: what Ray's nodes tell each other
STEP = 1.25  # of a batch's time on the link
STORE_MB = 600
BOUND = 0.9
WORKERS = len(PRODUCERS)


@contextlib.contextmanager
def open_rayfeed(num_bytes):
    options = rayfeed.ProducerOptions(num_cpus=1)
    with rayfeed.Feed(
        Ready(num_bytes), WORKERS, use_multiprocessing=True, max_queue_size=QUEUE, producers=options
    ) as feed:
        yield (x for x, _ in feed)


@contextlib.contextmanager
def open_ray_data(num_bytes):
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    here = ray.get_runtime_context().get_node_id()
    made = ray.data.range(20_000, override_num_blocks=2_000).map_batches(
        RayDataBatches,
        fn_constructor_args=(num_bytes,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=WORKERS),
        num_cpus=1,
        label_selector={"ray.io/node-id": f"!{here}"},
        scheduling_strategy="SPREAD",
    )
    iterator = iter(made.iter_batches(batch_size=ROWS, prefetch_batches=16))
    try:
        yield (batch["x"] for batch in iterator)
    finally:
        iterator.close()


@contextlib.contextmanager
def open_zmq(_num_bytes):
    import zmq

    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.set_hwm(4)
        pull.bind(f"tcp://*:{PUSH_PORT}")
        yield (np.frombuffer(pull.recv(copy=False).buffer, "float32") for _ in range(LENGTH))


def push(num_bytes):
    """What runs on each other host for `open_zmq`."""
    import zmq

    source = Ready(num_bytes)
    with zmq.Context() as context, context.socket(zmq.PUSH) as out:
        out.set_hwm(4)
        out.sndtimeo = SEND_MS
        out.linger = 0
        out.connect(f"tcp://{address_of(0)}:{PUSH_PORT}")
        index = 0
        while not select.select([sys.stdin], [], [], 0)[0]:  # until its end is closed
            with contextlib.suppress(zmq.Again):  # nobody takes any, for now
                out.send(source[index][0], copy=False)
                index += 1


OPENERS = {"rayfeed": open_rayfeed, "ray data": open_ray_data, "zmq": open_zmq}


def read(name, num_bytes):
    """What runs on host 0: takes a turn for each line that it reads, and answers with a line.

    A contender stays open between turns: it fills its queue and rests. Ray Data is opened for each: it goes on making
    blocks as long as the store has room.
    """
    import ray

    if name != "zmq":
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    with contextlib.ExitStack() as opened:
        batches = None
        print("ready", flush=True)
        for line in sys.stdin:
            if batches is None:
                batches = opened.enter_context(OPENERS[name](num_bytes))
                touch(next(batches))
            print(json.dumps(take_turn(batches, num_bytes, float(line))), flush=True)
            if name == "ray data":
                opened.close()
                batches = None


def take_turn(batches, num_bytes, step_s):
    """Megabytes a second, and the share of the time that was waited."""
    started = time.perf_counter()
    while time.perf_counter() - started < WARM_S:
        touch(next(batches))
    count, waited, started = 0, 0.0, time.perf_counter()
    while time.perf_counter() - started < TURN_S:
        asked = time.perf_counter()
        touch(next(batches))
        waited += time.perf_counter() - asked
        time.sleep(step_s)  # what a GPU would do
        count += 1
    passed = time.perf_counter() - started
    return count * num_bytes / passed / 1e6, waited / passed


def address_of(host):
    return f"{os.environ.get('RAYFEED_HOSTS_NETWORK', '10.77.0')}.{host + 1}"


def hosts(*words):
    """Run the script. Where this is interrupted on the way, it first removes what it has made."""
    process = subprocess.Popen([SCRIPT, *map(str, words)])  # noqa: S603 - this repository's script
    try:
        code = process.wait()
    finally:
        process.terminate()  # does nothing where it has ended
        process.wait()
    if code:
        raise subprocess.CalledProcessError(code, process.args)


def on_host(host, *command, **options):
    return subprocess.Popen(  # noqa: S603 - as above
        [SCRIPT, "exec", str(host), *map(str, command)], stdout=subprocess.PIPE, text=True, **options
    )


class Reader:
    """A contender on host 0, and what it needs on the others; `file` is the benchmark it belongs to."""

    def __init__(self, name, num_bytes, file=HERE):
        script = [sys.executable, file]
        self.name = name
        self.processes = [on_host(0, *script, "read", name, num_bytes, stdin=subprocess.PIPE)]
        if name == "zmq":
            self.processes += [on_host(host, *script, "push", num_bytes, stdin=subprocess.PIPE) for host in PRODUCERS]
        answer = self.answer()
        if answer != "ready\n":
            raise RuntimeError(f"{name} did not start: {answer!r}")

    def answer(self):
        """The next line, which comes in time or never."""
        if not select.select([self.processes[0].stdout], [], [], ANSWER_S)[0]:
            raise TimeoutError(f"{self.name} has not answered for {ANSWER_S:g} s")
        return self.processes[0].stdout.readline()

    def turn(self, step_s=0.0):
        """What `take_turn` gives there."""
        self.processes[0].stdin.write(f"{step_s}\n")
        self.processes[0].stdin.flush()
        return json.loads(self.answer())

    def close(self):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            process.wait(ANSWER_S)


def received():
    """Bytes that host 0 has received since it was started."""
    return int(subprocess.check_output([SCRIPT, "exec", "0", "cat", "/sys/class/net/eth0/statistics/rx_bytes"]))  # noqa: S603


def wait_until_idle():
    """Wait until nothing comes to host 0: the contender before has filled its queue again."""
    deadline, before = time.monotonic() + ANSWER_S, received()
    while time.monotonic() < deadline:
        time.sleep(LOOK_S)
        before, earlier = received(), before
        if before - earlier < IDLE_BYTES:
            return
    raise TimeoutError(f"the link is still in use after {ANSWER_S:g} s")


def iperf():
    """Megabytes a second from the three hosts to host 0 at once."""
    servers = [
        on_host(0, "iperf3", "--server", "--one-off", "--forceflush", "--port", IPERF_PORT + host) for host in PRODUCERS
    ]
    for server in servers:
        while "listening" not in server.stdout.readline():
            if server.poll() is not None:
                raise RuntimeError("iperf3's server did not start")
    command = ["iperf3", "--json", "--time", IPERF_S, "--omit", 1, "--client", address_of(0), "--port"]
    clients = [on_host(host, *command, IPERF_PORT + host) for host in PRODUCERS]
    found = [json.loads(client.communicate()[0])["end"]["sum_received"]["bits_per_second"] for client in clients]
    for server in servers:
        server.communicate()
    return sum(found) / 8e6


def measure(case, num_bytes, names):
    """The rounds' megabytes a second of each contender, and rayfeed's share of waiting beside a slower consumer."""
    with contextlib.ExitStack() as stack:
        readers = {}
        for name in names:
            readers[name] = Reader(name, num_bytes)
            stack.callback(readers[name].close)
        rows = {name: [] for name in ("iperf3", *names)}
        for _ in range(ROUNDS):
            wait_until_idle()
            rows["iperf3"].append(iperf())
            for name, reader in readers.items():
                wait_until_idle()
                rows[name].append(reader.turn()[0])
        waits = []
        if "rayfeed" in readers:
            step_s = STEP * num_bytes / 1e6 / statistics.median(rows["iperf3"])
            for _ in range(ROUNDS):
                wait_until_idle()
                waits.append(readers["rayfeed"].turn(step_s)[1])
    print(case, {name: [round(rate, 1) for rate in rates] for name, rates in rows.items()}, flush=True)
    return rows, waits


def main(names):
    if os.geteuid() != 0:
        sys.exit("network.py: hosts are made of namespaces, which only root may make: run it with sudo")
    if shutil.which("iperf3") is None:
        sys.exit("network.py: iperf3 is not installed: apt-get install iperf3")
    os.environ["RAYFEED_HOSTS_STORE_MB"] = str(STORE_MB)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the hosts are removed then too
    rows, waits = {}, {}
    hosts("up", 1 + WORKERS)
    try:
        hosts("shape", LINK)
        for delay_ms, where in ((0, ""), (DELAY_MS, f", {2 * DELAY_MS} ms")):
            hosts("delay", delay_ms)
            for size, num_bytes in SIZES.items():
                case = size + where
                rows[case], waits[case] = measure(case, num_bytes, names)
    finally:
        hosts("down")
    targets = [
        Target(f"{case}, of iperf3's bytes a second", ratios(row["rayfeed"], row["iperf3"]), BOUND)
        for case, row in rows.items()
        if "rayfeed" in row
    ]
    targets += [
        Target(f"{case}, share of its time that a consumer waits", waited, 0.05, at_least=False, unit="")
        for case, waited in waits.items()
        if waited
    ]
    finish("network", rows, targets, unit="MB a second")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read", name, num_bytes]:
            read(name, int(num_bytes))
        case ["push", num_bytes]:
            push(int(num_bytes))
        case names:
            main(names or list(OPENERS))
