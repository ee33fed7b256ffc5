DO $$ DECLARE c refcursor; BEGIN OPEN c FOR SELECT * FROM secrets; END $$
