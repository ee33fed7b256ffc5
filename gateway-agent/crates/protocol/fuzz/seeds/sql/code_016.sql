DO $$ DECLARE a int[]; BEGIN a[(SELECT count(*) FROM secrets)] := 1; END $$
