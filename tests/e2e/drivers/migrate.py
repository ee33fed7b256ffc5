"""Alembic: a migration up, again, and down, as JSON."""
import json, os, pathlib, subprocess, sys, tempfile
import sqlalchemy as sa

url = "postgresql+psycopg://%s:%s@%s/%s?sslmode=require" % tuple(os.environ[n] for n in ("PGUSER", "PGPASSWORD", "PGHOST", "PGDATABASE"))
folder = pathlib.Path(tempfile.mkdtemp())
versions = folder / "versions"
versions.mkdir()
(folder / "env.py").write_text("""
from alembic import context
import sqlalchemy as sa
engine = sa.create_engine(context.config.get_main_option("sqlalchemy.url").replace("%%", "%"))
with engine.connect() as db:
    context.configure(connection=db)
    with context.begin_transaction():
        context.run_migrations()
""")
(versions / "one.py").write_text("""
from alembic import op
import sqlalchemy as sa
revision, down_revision = "one", None
def upgrade():
    op.create_table("driver_migrated", sa.Column("id", sa.Integer, primary_key=True), sa.Column("what", sa.String(20), nullable=False, index=True))
    op.bulk_insert(sa.table("driver_migrated", sa.column("what", sa.String)), [{"what": "a"}, {"what": "b"}])
def downgrade():
    op.drop_table("driver_migrated")
""")
(versions / "two.py").write_text("""
from alembic import op
import sqlalchemy as sa
revision, down_revision = "two", "one"
def upgrade():
    op.add_column("driver_migrated", sa.Column("more", sa.Numeric(10, 2), server_default="1.5"))
    op.create_unique_constraint("driver_once", "driver_migrated", ["what"])
    op.execute("UPDATE driver_migrated SET what = upper(what)")
def downgrade():
    op.drop_constraint("driver_once", "driver_migrated")
    op.drop_column("driver_migrated", "more")
""")
from alembic import command
from alembic.config import Config

config = Config()
config.set_main_option("script_location", str(folder))
config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
engine = sa.create_engine(url)
said = {}


def tables():
    inspector = sa.inspect(engine)
    return {name: [[c["name"], str(c["type"]), c["nullable"]] for c in inspector.get_columns(name)] + [sorted(map(str, inspector.get_unique_constraints(name)))]
            for name in inspector.get_table_names() if name in ("driver_migrated", "alembic_version")}


command.upgrade(config, "head")
said["up"] = tables()
command.upgrade(config, "head")
with engine.begin() as db:
    said["rows"] = [list(map(str, row)) for row in db.execute(sa.text("SELECT * FROM driver_migrated ORDER BY id"))]
    said["version"] = db.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
command.downgrade(config, "base")
said["down"] = tables()
with engine.begin() as db:
    db.execute(sa.text("DROP TABLE alembic_version"))
print(json.dumps(said))
