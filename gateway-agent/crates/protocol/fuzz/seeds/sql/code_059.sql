DO $$ DECLARE a int[]; BEGIN a[(SELECT pin FROM vault LIMIT 1)] := 1; END $$
