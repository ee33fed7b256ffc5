DO $a$ BEGIN DO $b$ BEGIN DELETE FROM orders; END $b$; END $a$
