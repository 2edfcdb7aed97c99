"""The private test servers: real, empty for each test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa


@pytest.mark.redis
@pytest.mark.parametrize("turn", [1, 2])
def test_redis_is_empty_for_each_test(redis_url: str, turn: int) -> None:
    client = redis.Redis.from_url(redis_url)
    assert client.dbsize() == 0
    client.set("turn", turn)


@pytest.mark.postgres
@pytest.mark.parametrize("turn", [1, 2])
def test_postgres_is_empty_for_each_test(postgres_url: str, turn: int) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == []
        connection.execute(sa.text("CREATE TABLE turn (n integer)"))
    engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize(("required", "outcome", "code"), [("", "skipped", 0), ("postgres,redis", "error", 1)])
def test_a_missing_server_skips_unless_it_is_required(required: str, outcome: str, code: int, tmp_path: Path) -> None:
    test = "test_redis_is_empty_for_each_test"
    command = [sys.executable, "-m", "pytest", "-q", f"{__file__}::{test}", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PATH": str(tmp_path), "DRIFTLINE_REQUIRE": required}
    root = Path(__file__).parents[3]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == code
    assert f"2 {outcome}" in run.stdout
    assert "apt-get install redis-server" in run.stdout
