CREATE FUNCTION made(x text) RETURNS void LANGUAGE plpgsql AS 'BEGIN IF x > ''M'' THEN UPDATE scratch SET t = ''yes''; END IF; END'
