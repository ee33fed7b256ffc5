CREATE FUNCTION made(x text) RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO scratch (t) VALUES (x); END'
