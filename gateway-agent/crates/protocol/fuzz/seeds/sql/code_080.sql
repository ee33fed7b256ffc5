DO $a$ BEGIN DO $b$ BEGIN INSERT INTO scratch (t) SELECT secret FROM vault; END $b$; END $a$
